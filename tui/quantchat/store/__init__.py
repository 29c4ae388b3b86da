"""What quantchat keeps on disk: sessions, journals, settings, themes."""
