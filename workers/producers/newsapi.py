"""NewsAPI: top headlines, by category.

References
----------
https://newsapi.org/docs/endpoints/top-headlines (answer), https://newsapi.org/docs/errors (codes)
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from pydantic import ValidationError

from workers.errors import ApiAway, ApiError, ApiRefused, RejectedMessage
from workers.messages import NEWS, Message, NewsArticle, Topic
from workers.producers.enrichment import count_words, has_crypto_mention
from workers.producers.sources import Question, unusable

_PASSING: Final = ("rateLimited", "unexpectedError")
_REFUSING: Final = (
    "apiKeyDisabled",
    "apiKeyExhausted",
    "apiKeyInvalid",
    "apiKeyMissing",
    "parameterInvalid",
    "parametersMissing",
    "sourcesTooMany",
    "sourceDoesNotExist",
)
_CODES: Final = (*_PASSING, *_REFUSING)
_REMOVED: Final = "[Removed]"
_PAGE: Final = "100"  # the most that one request gives


class NewsApi:
    """`GET /v2/top-headlines`."""

    name: Final = "newsapi"
    topic: Topic = NEWS
    key_header: Final = "x-api-key"

    def __init__(self, *, country: str = "us", categories: Sequence[str] = ()) -> None:
        """Keep what is asked for: a country's headlines, one category after another."""
        self._country = country
        self._categories = tuple(categories)

    def questions(self) -> tuple[Question, ...]:
        """One for each category: the answer does not say which it is of."""
        given = {"country": self._country, "pageSize": _PAGE}
        return tuple(
            Question(path="/v2/top-headlines", params={**given, "category": category}, about={"category": category})
            for category in self._categories
        )

    def fault(self, answer: Any) -> ApiError | None:  # noqa: ANN401 - JSON
        """What an error body means, whatever status it came under."""
        if not isinstance(answer, dict) or "status" not in answer:
            return ApiAway("NewsAPI did not answer as it should", hint="It is asked again later")
        if answer["status"] == "ok" and isinstance(answer.get("articles"), list):
            return None
        code = answer.get("code")
        code = code if code in _CODES else "without a known code"  # what else stands there may repeat the key
        if code in _PASSING:
            return ApiAway(f"NewsAPI says {code}", hint="Ask less often, or get a larger plan")
        return ApiRefused(f"NewsAPI refuses: {code}", hint="Look at INSIGHT_NEWSAPI_URL and INSIGHT_NEWSAPI_API_KEY")

    def is_answer(self, document: Any) -> bool:  # noqa: ANN401 - JSON
        """Whether it is what `/v2/top-headlines` answers."""
        return isinstance(document, dict) and isinstance(document.get("articles"), list)

    def read(self, answer: Any, question: Question, *, at: datetime) -> Iterator[Message | RejectedMessage]:  # noqa: ANN401 - JSON
        """The articles; one that was removed is none, one that stands twice is one."""
        seen = set()
        for article in answer["articles"]:
            try:
                url = article["url"]
                if url in seen or article["title"] == _REMOVED:
                    continue
                seen.add(url)
                yield self._article(article, question.about.get("category"), at)
            except (ValidationError, KeyError, TypeError, ValueError, AttributeError) as error:
                yield unusable(error, what="article")

    def _article(self, article: Any, category: str | None, at: datetime) -> NewsArticle:  # noqa: ANN401 - JSON
        title, description = article["title"], article.get("description") or None
        return NewsArticle(
            source=self.name,
            headline=title,
            description=description,
            url=article["url"],
            category=category,
            source_name=(article.get("source") or {}).get("name") or None,
            word_count=count_words(title, description),
            has_crypto_mention=has_crypto_mention(title, description),
            published_at=datetime.fromisoformat(article["publishedAt"]).astimezone(UTC),
            timestamp=at,
        )

    def news_key(self, message: Message) -> tuple[str, str]:
        """An article is news if its url is new, or if it was rewritten."""
        if not isinstance(message, NewsArticle):
            raise TypeError(type(message))
        said = f"{message.headline}\n{message.description}\n{message.category}"
        return message.url, hashlib.sha256(said.encode()).hexdigest()
