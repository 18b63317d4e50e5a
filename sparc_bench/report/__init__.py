"""Tables and pictures made of records: comparison, leaderboard, published numbers."""
