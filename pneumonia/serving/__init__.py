"""The API and what answers in it: predictor, middleware, page, telemetry, cold start.

Never imports training or batch.
"""
