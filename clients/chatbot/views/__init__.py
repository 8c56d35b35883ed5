"""What the chatbot looks like in Streamlit. Nothing is decided here."""
