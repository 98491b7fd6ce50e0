"""The API: routes, documentation, middleware, predictor, page, telemetry, cold start.

Never imports training or batch.
"""
