"""Questions about the sample documents, with the page that answers each; and questions that none answers."""

from __future__ import annotations

BITCOIN = "bitcoin-whitepaper.pdf"
METRICS = "digital-metrics-guidance.pdf"
MARKETS = "financial-market-analysis-report-2023.pdf"
EMAILS = "five-insider-secrets-to-engaging-emails.pdf"

ANSWERED: tuple[tuple[str, str, tuple[int, ...]], ...] = (
    ("Who wrote the Bitcoin paper?", BITCOIN, (1,)),
    ("What is a purely peer-to-peer version of electronic cash for?", BITCOIN, (1,)),
    ("How is an electronic coin defined?", BITCOIN, (2,)),
    ("What does a timestamp server do with a hash of a block of items?", BITCOIN, (2,)),
    ("Whose Hashcash is the proof-of-work similar to?", BITCOIN, (3,)),
    ("What are the steps to run the network?", BITCOIN, (3,)),
    ("What is proof-of-work essentially, in terms of CPU and votes?", BITCOIN, (3,)),
    ("How large is a block header with no transactions?", BITCOIN, (4,)),
    ("What incentive do nodes have to stay honest?", BITCOIN, (4,)),
    ("In which tree are transactions hashed to save disk space?", BITCOIN, (4,)),
    ("How can payments be verified without running a full network node?", BITCOIN, (5,)),
    ("How is privacy maintained when all transactions are public?", BITCOIN, (6,)),
    ("Which problem is the attacker catching up analogous to?", BITCOIN, (6,)),
    ("Which distribution will the attacker's potential progress have?", BITCOIN, (7,)),
    ("What is a bounce rate?", METRICS, (4,)),
    ("How is average visit duration defined?", METRICS, (3,)),
    ("What counts as a unique visitor?", METRICS, (2,)),
    ("What does the total number of on-site search queries tell?", METRICS, (5,)),
    ("What can demographics not tell because only an IP address is known?", METRICS, (6,)),
    ("Which OMB memo explains procedures for tag-based analytics?", METRICS, (15,)),
    ("Which free online survey tools can be used for customer satisfaction?", METRICS, (16,)),
    ("From how many people may feedback be collected without OMB approval?", METRICS, (16,)),
    ("How many members does the Web and New Media Community have?", METRICS, (18,)),
    ("How fast is Fast Track PRA approval?", METRICS, (16, 18)),
    ("Who wrote The Ultimate Question 2.0?", METRICS, (19,)),
    ("What is the correlation of Bitcoin and Ethereum?", MARKETS, (7,)),
    ("Which commodities are fundamental to the global economy?", MARKETS, (6,)),
    ("Which macroeconomic factors shape financial markets?", MARKETS, (8,)),
    ("What are the predictions for the future of financial markets?", MARKETS, (9,)),
    ("Who is committed to providing clients with nuanced analysis?", MARKETS, (10,)),
    ("At what time is the weekly IT newsletter sent on Thursday?", EMAILS, (3,)),
    ("What open rates did the send strategy maintain?", EMAILS, (3,)),
    ("What is A/B testing?", EMAILS, (3, 4)),
    ("Why should an email have one call to action?", EMAILS, (2, 3)),
    ("Why are emojis used in the subject line?", EMAILS, (1,)),
    ("Who is the lead author of the weekly IT Insider?", EMAILS, (4,)),
    ("Where do the majority of readers open emails?", EMAILS, (4,)),
    ("What did employees submit as their favorite tech hack?", EMAILS, (2,)),
    ("Why is a shared calendar for sending messages helpful?", EMAILS, (3,)),
    ("Which background feature was launched over Thanksgiving?", EMAILS, (1,)),
)

UNANSWERED: tuple[str, ...] = (
    "What is the capital of Mongolia?",
    "Who won the football world cup in 2018?",
    "How do I bake sourdough bread?",
    "What was our revenue in Chicago?",
    "Which vaccine protects against measles?",
    "How tall is Mount Everest?",
    "Who painted the Mona Lisa?",
    "What is the boiling point of ethanol?",
    "Which visa do I need for Japan?",
    "When does the train to Hamburg leave?",
    "What is the melting temperature of copper?",
    "How many players has a volleyball team?",
    "Which warranty does the refrigerator have?",
    "Who composed the Ninth Symphony?",
    "What is the maximum dosage of ibuprofen?",
    "How many employees does Contoso have in Norway?",
    "Which programming language was invented by Guido van Rossum?",
    "How do penguins sleep?",
)
