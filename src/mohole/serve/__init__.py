"""The app and its HTTP API over finished runs. Reads artifacts; of its own it writes only notes, lists and people's labels."""
