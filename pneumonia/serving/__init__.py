"""The API and what answers in it: routes, documentation, middleware, predictor, page, telemetry, cold start.

Never imports training or batch.
"""
