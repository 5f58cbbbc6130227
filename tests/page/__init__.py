"""The page of `dibr serve`, in a real browser."""
