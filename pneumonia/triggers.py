"""What invokes a Lambda function: the name of the service that sends an event, without what the event is about.

https://docs.aws.amazon.com/lambda/latest/dg/lambda-services.html
"""

from typing import Any

# Which service sends an event, by what the event, or its first record, names as its source or has as a field.
SOURCES = {
    "aws:s3": "Amazon S3",
    "aws:sqs": "Amazon SQS",
    "aws:sns": "Amazon SNS",
    "aws:ses": "Amazon SES",
    "aws:dynamodb": "DynamoDB Streams",
    "aws:kinesis": "Kinesis Data Streams",
    "aws:kafka": "Apache Kafka",
    "SelfManagedKafka": "Apache Kafka",
    "aws:mq": "Amazon MQ",
    "aws:rmq": "Amazon MQ",
    "aws:docdb": "Amazon DocumentDB",
    "aws:codecommit": "CodeCommit",
}
FIELDS = {
    "awslogs": "CloudWatch Logs",
    "alarmData": "a CloudWatch alarm",
    "cf": "CloudFront (Lambda@Edge)",
    "userPoolId": "Amazon Cognito",
    "identityPoolId": "Amazon Cognito",
    "sessionState": "Amazon Lex",
    "currentIntent": "Amazon Lex",
    "session": "an Alexa skill",
    "deliveryStreamArn": "Amazon Data Firehose",
    "invocationSchemaVersion": "S3 Batch Operations, whose place is the batch function",
    "getObjectContext": "S3 Object Lambda",
    "configRuleName": "AWS Config",
    "CodePipeline.job": "CodePipeline",
    "ResponseURL": "CloudFormation",
    "SecretId": "Secrets Manager",
    "methodArn": "an API Gateway that asks for authorization",
    "routeArn": "an API Gateway that asks for authorization",
    "authorizationToken": "an API that asks for authorization",
    "requestPayload": "a function whose destination is this one",
    "raw_path": "VPC Lattice",
    "stash": "AppSync",
    "actionGroup": "an agent of Amazon Bedrock",
}
SHOWN = 100  # characters of a text of an event, in a sentence


def service_of(event: Any) -> str | None:  # noqa: ANN401  # JSON
    """Return the service that sends an event; None for a request, and for what no service is known to send."""
    fields = event if isinstance(event, dict) else {}
    for one in (fields, *records_of(event)[:1]):
        source = one.get("eventSource") or one.get("EventSource")
        if service := SOURCES.get(text_of(source)) or next((FIELDS[name] for name in FIELDS if name in one), None):
            return service
    return None


def name_of(event: Any) -> str:  # noqa: ANN401  # JSON
    """Return what an event is, as far as it can be told, without what it is about."""
    if service := service_of(event):
        return f"an event of {service}"
    fields = event if isinstance(event, dict) else {}
    if "detail-type" in fields:
        return f"an event of EventBridge ({shown(fields['detail-type'])})"
    if fields:
        return f"an event with the fields {', '.join(repr(name[:30]) for name in sorted(fields)[:5])}"
    return "an empty event" if fields == event else f"JSON that is no object ({type(event).__name__})"


def records_of(event: Any) -> list[dict[str, Any]]:  # noqa: ANN401  # JSON
    """Return an event's records, none if it has none. A pipe of EventBridge sends a list of them alone."""
    records = event.get("Records") if isinstance(event, dict) else event
    return [record for record in records if isinstance(record, dict)] if isinstance(records, list) else []


def text_of(value: Any) -> str:  # noqa: ANN401  # JSON
    """Return a text of an event, an empty one for JSON of any other kind: it may be nested too deeply to be written."""
    return value if isinstance(value, str) else ""


def shown(value: Any) -> str:  # noqa: ANN401  # JSON
    """Return a text of an event in quotes and at most SHOWN characters, of lists and objects only the kind."""
    return type(value).__name__ if isinstance(value, list | dict) else repr(value)[: SHOWN + 2]
