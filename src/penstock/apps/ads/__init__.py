"""Ad-campaign analytics: events counted per campaign and window, with their realistic load."""
