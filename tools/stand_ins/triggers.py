"""Events that are no requests: what warms functions up, and what other services send, as their documentation has it.

https://docs.aws.amazon.com/lambda/latest/dg/lambda-services.html
https://docs.aws.amazon.com/lambda/latest/dg/with-eventbridge-scheduler.html
https://docs.aws.amazon.com/lexv2/latest/dg/lambda-input-format.html
https://docs.aws.amazon.com/cognito/latest/developerguide/cognito-user-pools-working-with-lambda-triggers.html
https://github.com/juanjoDiaz/serverless-plugin-warmup
"""

import base64
import gzip
import json
from typing import Any

from tools.stand_ins.events import ACCOUNT, function_url_event

REGION = "eu-central-1"
ID = "53dc4d37-cffa-4f76-80c9-8b7d4a4d2eaa"
NAME = "john-doe-1970.jpeg"  # of an image, as a service names it: not for logs or answers


def arn(service: str, resource: str) -> str:
    """Return the name of a resource."""
    return f"arn:aws:{service}:{REGION}:{ACCOUNT}:{resource}"


def from_event_bridge(source: str, detail_type: str, resource: str, detail: object) -> dict[str, Any]:
    """Return an event of EventBridge."""
    return {
        "version": "0",
        "id": ID,
        "detail-type": detail_type,
        "source": source,
        "account": ACCOUNT,
        "time": "2026-11-28T12:00:00Z",
        "region": REGION,
        "resources": [resource],
        "detail": detail,
    }


def records(source: str, **fields: object) -> dict[str, Any]:
    """Return an event of one record."""
    return {"Records": [{"eventSource": source, "awsRegion": REGION, **fields}]}


SCHEDULED = from_event_bridge("aws.events", "Scheduled Event", arn("events", "rule/warm"), {})
SCHEDULE = arn("scheduler", "schedule/default/warm")
WARM_UPS: dict[str, Any] = {
    "schedule of a rule": SCHEDULED,
    "EventBridge Scheduler": from_event_bridge("aws.scheduler", "Scheduled Event", SCHEDULE, "{}"),
    "EventBridge Scheduler, its own payload": {"schedule": SCHEDULE, "attempt": "1", "id": ID},
    "EventBridge Scheduler, a word as payload": {"warmup": True},
    "empty": {},
    "null": None,
    "console's test": {"key1": "value1", "key2": "value2", "key3": "value3"},
    "serverless-plugin-warmup": {"source": "serverless-plugin-warmup"},
    "lambda-warmer": {"warmer": True, "concurrency": 3},
    "a schedule of one's own": {"action": "warm-up"},
    "Zappa's keep-warm": SCHEDULED | {"kwargs": {}},
}

S3_OBJECT = {"bucket": {"name": "xrays", "arn": "arn:aws:s3:::xrays"}, "object": {"key": NAME, "size": 1024}}
SERVICES: dict[str, dict[str, Any]] = {
    "Amazon S3": records("aws:s3", eventVersion="2.1", eventName="ObjectCreated:Put", s3=S3_OBJECT),
    "Amazon SQS": records("aws:sqs", messageId=ID, receiptHandle="AQEB", body=NAME, eventSourceARN=arn("sqs", "xrays")),
    "Amazon SNS": {
        "Records": [
            {
                "EventVersion": "1.0",
                "EventSource": "aws:sns",
                "EventSubscriptionArn": arn("sns", f"xrays:{ID}"),
                "Sns": {"Type": "Notification", "MessageId": ID, "Subject": None, "Message": NAME},
            }
        ]
    },
    "Amazon SES": records("aws:ses", eventVersion="1.0", ses={"mail": {"messageId": ID}}),
    "DynamoDB Streams": records("aws:dynamodb", eventID="1", eventName="INSERT", dynamodb={"SequenceNumber": "111"}),
    "Kinesis Data Streams": records(
        "aws:kinesis", eventID=f"shard:{ID}", kinesis={"sequenceNumber": "1", "data": "e30="}
    ),
    "CodeCommit": records("aws:codecommit", eventName="TriggerEventTest", codecommit={"references": []}),
    "Apache Kafka": {"eventSource": "aws:kafka", "eventSourceArn": arn("kafka", "cluster/x"), "records": {"t-0": []}},
    "Amazon MQ": {"eventSource": "aws:mq", "eventSourceArn": arn("mq", "broker:x"), "messages": []},
    "Amazon DocumentDB": {"eventSource": "aws:docdb", "eventSourceArn": arn("rds", "cluster:x"), "events": []},
    "CloudWatch Logs": {
        "awslogs": {"data": base64.b64encode(gzip.compress(json.dumps({"logGroup": "xrays"}).encode())).decode()}
    },
    "a CloudWatch alarm": {"source": "aws.cloudwatch", "alarmArn": arn("cloudwatch", "alarm:x"), "alarmData": {}},
    "CloudFront (Lambda@Edge)": {"Records": [{"cf": {"request": {"uri": "/predict", "method": "GET", "headers": {}}}}]},
    "Amazon Cognito": {
        "version": "1",
        "triggerSource": "PreSignUp_SignUp",
        "region": REGION,
        "userPoolId": f"{REGION}_abc",
        "userName": "warmington",
        "callerContext": {"clientId": "x"},
        "request": {"userAttributes": {"email": NAME}},
        "response": {},
    },
    "Amazon Lex": {
        "messageVersion": "1.0",
        "invocationSource": "FulfillmentIntent",
        "inputTranscript": NAME,
        "bot": {"id": "x", "name": "xrays", "version": "DRAFT"},
        "sessionState": {"intent": {"name": "Ask"}},
    },
    "Amazon Data Firehose": {
        "invocationId": ID,
        "deliveryStreamArn": arn("firehose", "deliverystream/x"),
        "records": [],
    },
    "S3 Batch Operations": {"invocationSchemaVersion": "1.0", "invocationId": "x", "job": {"id": ID}, "tasks": []},
    "AWS Config": {"invokingEvent": "{}", "ruleParameters": "{}", "configRuleName": "x", "resultToken": "x"},
    "CodePipeline": {"CodePipeline.job": {"id": ID, "accountId": ACCOUNT}},
    "CloudFormation": {"RequestType": "Create", "ResponseURL": "http://127.0.0.1:9", "StackId": "x", "RequestId": ID},
    "Secrets Manager": {
        "Step": "createSecret",
        "SecretId": arn("secretsmanager", "secret:x"),
        "ClientRequestToken": ID,
    },
    "an API Gateway that asks for authorization": {  # of an HTTP API
        "version": "2.0",
        "type": "REQUEST",
        "routeArn": arn("execute-api", "a1b2c3d4e5/$default/GET/health"),
        "identitySource": [NAME],
        **function_url_event("GET", "/health"),
    },
    "an API that asks for authorization": {"authorizationToken": NAME, "requestContext": {"apiId": "x"}},
    "a function whose destination is this one": {
        "version": "1.0",
        "requestContext": {"requestId": ID, "condition": "RetriesExhausted", "approximateInvokeCount": 3},
        "requestPayload": {"name": NAME},
        "responseContext": {"statusCode": 200},
    },
    "VPC Lattice": {"raw_path": "/health", "method": "GET", "headers": {}, "body": "", "is_base64_encoded": False},
    "AppSync": {"arguments": {"name": NAME}, "source": None, "info": {"fieldName": "x"}, "stash": {}},
    "an agent of Amazon Bedrock": {"actionGroup": "x", "apiPath": "/health", "httpMethod": "GET", "inputText": NAME},
    "EventBridge ('SageMaker Training Job State Change')": from_event_bridge(
        "aws.sagemaker",
        "SageMaker Training Job State Change",
        arn("sagemaker", "training-job/pneumonia-training-1"),
        {"TrainingJobStatus": "Completed"},
    ),
}
