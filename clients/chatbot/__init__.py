"""The chatbot: conversations about metrics and documents. What it does is here, what it looks like in `views`."""
