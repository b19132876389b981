"""The operator's seat in the browser: live cameras, hand, talk, keys, charts and the review of demonstrations."""
