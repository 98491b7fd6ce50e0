"""template.yaml: what SAM makes of it, deployed into moto's CloudFormation as far as that goes.

Moto does not know SAM: `samtranslator`, which is what AWS runs, turns the template into CloudFormation first.
"""

import json
import re
from ast import literal_eval
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import boto3
import pytest
from samtranslator.parser.parser import Parser
from samtranslator.translator.translator import Translator

from pneumonia.launching.job import JOB_PREFIX
from tests.builders.checkout import PROJECT
from tests.builders.template import METRICS, Template, alarms, of_type, source
from tools.stand_ins.moto import REGION, Moto

ACCOUNT = "123456789012"
MAX_BYTES = 51_200  # of a template that is not brought to S3 first
GIVEN = {"ImageUri": f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/pneumonia:4733b0787127", "Revision": "2611250412"}

# What moto's CloudFormation passes over, and what of it is tested instead.
NOT_IN_MOTO = {
    "AWS::CloudWatch::Alarm": "put by CloudWatch's own call",
    "AWS::CodeDeploy::Application": "read in SAM's output",
    "AWS::CodeDeploy::DeploymentGroup": "read in SAM's output",
    "AWS::Lambda::Alias": "read in SAM's output; the function stands for it where it is referred to",
    "AWS::Lambda::EventInvokeConfig": "read in SAM's output",
    "AWS::Lambda::Url": "read in SAM's output",
    "AWS::S3::BucketPolicy": "put by S3's own call",
    "AWS::SNS::Subscription": "nothing: moto sends no mail",
    "AWS::SQS::QueuePolicy": "read in SAM's output",
}
# Of a bucket it makes encryption alone; S3's own calls put the rest.
BUCKET_PROPERTIES_IN_MOTO = {"BucketEncryption"}

GIVEN_NAMES = {"AlarmName", "DashboardName", "FunctionName", "LogGroupName"}
MADE_NAMES = {"BucketName", "Name", "PolicyName", "QueueName", "RoleName", "TopicName"}

LAMBDA_METRICS = {"Invocations", "Errors", "Throttles", "Duration", "ConcurrentExecutions"}


def transformed(**parameters: str) -> Template:
    """Return the CloudFormation that SAM makes of the template."""
    translator = Translator({}, Parser(), boto_session=boto3.Session(region_name=REGION))
    template: Template = translator.translate(source(), GIVEN | parameters)
    return template


def replaced(node: Any, value: Callable[[str], Any]) -> Any:  # noqa: ANN401  # any part of a template
    """Return a part of a template with references replaced.

    Args:
        node: the part.
        value: returns what stands for `Name` or `Name.Attribute`, None to leave the reference.
    """
    match node:
        case {"Ref": name} if (found := value(name)) is not None:
            return found
        case {"Fn::GetAtt": [name, attribute]} if (found := value(f"{name}.{attribute}")) is not None:
            return found
        case {"Fn::Sub": str(text)}:
            text = re.sub(r"\$\{([\w:.]+)\}", lambda m: m[0] if (found := value(m[1])) is None else f"{found}", text)
            return {"Fn::Sub": text} if "${" in text else text
        case dict():
            return {key: replaced(item, value) for key, item in node.items()}
        case list():
            return [replaced(item, value) for item in node]
    return node


def for_moto(template: Template) -> Template:
    """Return a template without what moto does not know."""
    gone = {name for name, resource in template["Resources"].items() if resource["Type"] in NOT_IN_MOTO}

    def stand_in(reference: str) -> Any:  # noqa: ANN401
        name = reference.partition(".")[0]
        if name == "InferenceFunctionAliaslive":
            return {"Ref": "InferenceFunction"}
        return f"no-{reference}" if name in gone else None

    kept = {name: resource for name, resource in template["Resources"].items() if name not in gone}
    return template | {
        "Resources": replaced(kept, stand_in),
        "Outputs": replaced(template["Outputs"], stand_in),
    }


@dataclass(frozen=True)
class Stack:
    """A stack in moto.

    Attributes:
        moto: the server.
        name: of the stack.
        template: all that SAM made, what moto does not know included.
        made: the physical names of what moto made by the logical ones.
        outputs: the stack's.
    """

    moto: Moto
    name: str
    template: Template
    made: dict[str, str]
    outputs: dict[str, str]

    def client(self, service: str) -> Any:  # noqa: ANN401  # each service has a type of its own
        return client(self.moto, service)

    def resolved(self, node: Any) -> Any:  # noqa: ANN401
        """Return a part of the template as CloudFormation would have it, as far as moto made what it refers to."""
        values: dict[str, Any] = {
            name: parameter.get("Default") for name, parameter in self.template["Parameters"].items()
        }
        values |= GIVEN | self.made | {"AWS::StackName": self.name}
        values |= {
            f"{name}.Arn": f"arn:aws:s3:::{self.made[name]}" for name in of_type(self.template, "AWS::S3::Bucket")
        }
        values |= {f"{name}.QueueName": "queue" for name in of_type(self.template, "AWS::SQS::Queue")}
        return replaced(node, values.get)

    def statements(self, role: str) -> list[dict[str, Any]]:
        """Return the statements of a role's policies, read back from IAM."""
        iam = self.client("iam")
        name = self.made[role]
        assert iam.list_attached_role_policies(RoleName=name)["AttachedPolicies"] == []
        return [
            statement
            for policy in iam.list_role_policies(RoleName=name)["PolicyNames"]
            # Moto prints the document as Python does.
            for statement in literal_eval(iam.get_role_policy(RoleName=name, PolicyName=policy)["PolicyDocument"])[
                "Statement"
            ]
        ]

    def allows(self, role: str, action: str, resource: str) -> bool:
        """Return whether a role may do something."""
        return any(
            action in listed(statement["Action"])
            and any(fnmatchcase(resource, pattern) for pattern in listed(statement["Resource"]))
            for statement in self.statements(role)
        )


def client(moto: Moto, service: str) -> Any:  # noqa: ANN401  # each service has a type of its own
    return boto3.client(
        service,  # type: ignore[call-overload]
        endpoint_url=moto.endpoint,
        region_name=REGION,
        aws_access_key_id="testing",
        aws_secret_access_key="testing",
    )


def listed(value: str | list[str]) -> list[str]:
    return value if isinstance(value, list) else [value]


def deploy(moto: Moto, name: str, **parameters: str) -> Stack:
    """Deploy the template into moto."""
    template = transformed(**parameters)
    cloudformation = client(moto, "cloudformation")
    cloudformation.create_stack(
        StackName=name,
        TemplateBody=json.dumps(for_moto(template)),
        Parameters=[{"ParameterKey": key, "ParameterValue": value} for key, value in (GIVEN | parameters).items()],
        Capabilities=["CAPABILITY_IAM"],
    )
    stack = cloudformation.describe_stacks(StackName=name)["Stacks"][0]
    assert stack["StackStatus"] == "CREATE_COMPLETE"
    made = {
        resource["LogicalResourceId"]: resource["PhysicalResourceId"]
        for page in cloudformation.get_paginator("list_stack_resources").paginate(StackName=name)
        for resource in page["StackResourceSummaries"]
    }
    outputs = {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}
    return Stack(moto, name, template, made, outputs)


@pytest.fixture(scope="module")
def stack(moto: Moto) -> Stack:
    """A stack with every parameter at its default."""
    return deploy(moto, "signed")


@pytest.fixture(scope="module")
def public_stack(moto: Moto) -> Stack:
    """A stack whose URL anyone may call."""
    return deploy(moto, "public", UrlAuthorization="NONE")


# The template as a whole


def test_it_is_deployed_without_a_bucket_of_its_own() -> None:
    assert (PROJECT / "template.yaml").stat().st_size * 1.2 < MAX_BYTES  # the SAM CLI sends it written out longer


def test_moto_makes_all_but_what_is_listed(stack: Stack) -> None:
    conditional = {name for name, resource in stack.template["Resources"].items() if "Condition" in resource}
    types = {
        resource["Type"]
        for name, resource in stack.template["Resources"].items()
        if name not in {*stack.made, *conditional}
    }
    assert types == NOT_IN_MOTO.keys() - {"AWS::SNS::Subscription"}  # there is no address by default
    assert {resource["Type"] for resource in stack.template["Resources"].values()} > NOT_IN_MOTO.keys()


@pytest.mark.parametrize("kind", sorted(NOT_IN_MOTO))
def test_moto_still_passes_over_what_is_listed(moto: Moto, kind: str) -> None:
    template = {"Resources": {"Only": {"Type": kind, "Properties": {}}}}
    name = kind.replace("::", "-")
    cloudformation = client(moto, "cloudformation")
    cloudformation.create_stack(StackName=name, TemplateBody=json.dumps(template))
    made = cloudformation.list_stack_resources(StackName=name)["StackResourceSummaries"]
    assert "Only" not in [resource["LogicalResourceId"] for resource in made]


def test_every_name_is_of_the_stack_or_of_cloudformations_making() -> None:
    """Two stacks of an account have no name in common."""
    resources, outputs = source()["Resources"].values(), source()["Outputs"].values()
    given = [
        (name, value["Fn::Sub"])
        for resource in resources
        for name, value in resource["Properties"].items()
        # A permission names the function that it is for.
        if name in GIVEN_NAMES | MADE_NAMES and resource["Type"] != "AWS::Lambda::Permission"
    ]
    assert {name for name, _ in given} == GIVEN_NAMES
    assert [text for _, text in given if "${AWS::StackName}" not in text] == []
    # All of an account's regions share its dashboards.
    assert ("DashboardName", "${AWS::StackName}-${AWS::Region}") in given
    assert not any("Export" in output for output in outputs)


def test_every_parameter_but_the_images_has_a_default() -> None:
    parameters = source()["Parameters"]
    assert {name for name, parameter in parameters.items() if "Default" not in parameter} == GIVEN.keys()
    assert all(parameter["Description"] for parameter in parameters.values())


# Rights


def test_nothing_is_granted_on_everything_but_what_has_no_resource_level() -> None:
    wide = {
        (name, statement["Sid"])
        for name, statement in granted(transformed(UrlAuthorization="NONE"))
        if "*" in listed(statement["Resource"]) or any("*" in action for action in listed(statement["Action"]))
    }
    assert wide == {("TrainingRole", "LogInToRegistries"), ("TrainingRole", "PutMetrics")}


def granted(template: Template) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every statement that allows something, with the resource it stands in."""
    for name, resource in template["Resources"].items():
        properties = resource["Properties"]
        assert "ManagedPolicyArns" not in properties
        documents = [policy["PolicyDocument"] for policy in properties.get("Policies", [])]
        documents += [properties["PolicyDocument"]] if "PolicyDocument" in properties else []
        for document in documents:
            yield from ((name, one) for one in document["Statement"] if one["Effect"] == "Allow")


DATA, WEIGHTS, TRAINED = "DataBucket", "WeightsBucket", f"{JOB_PREFIX}/{JOB_PREFIX}-1/output/model.tar.gz"
FOLDER = f"{JOB_PREFIX}/{JOB_PREFIX}-1/output/model/"  # without compression


@pytest.mark.parametrize(
    ("role", "action", "bucket", "key"),
    [
        ("TrainingRole", "s3:GetObject", DATA, "chest_xray/train/NORMAL/1.jpeg"),
        ("TrainingRole", "s3:GetObject", DATA, f"{JOB_PREFIX}/{JOB_PREFIX}-1/input/code/train_model.py"),
        ("TrainingRole", "s3:PutObject", DATA, TRAINED),
        ("TrainingRole", "s3:ListBucket", DATA, None),
        ("PromotionRole", "s3:GetObject", DATA, TRAINED),
        ("PromotionRole", "s3:GetObject", DATA, f"{FOLDER}pneumonia_classifier.pth"),
        ("PromotionRole", "s3:GetObject", WEIGHTS, "current.json"),
        ("PromotionRole", "s3:PutObject", WEIGHTS, "releases/1/manifest.json"),
        ("PromotionRole", "s3:ListBucket", WEIGHTS, None),
        ("InferenceRole", "s3:GetObject", WEIGHTS, "current.json"),
        ("InferenceRole", "s3:ListBucket", WEIGHTS, None),
        ("BatchRole", "s3:GetObject", DATA, "chest_xray/test/NORMAL/1.jpeg"),
        ("BatchRole", "s3:GetObject", WEIGHTS, "current.json"),
        ("BatchOperationsRole", "s3:GetObject", DATA, "batch/manifest-0123456789ab.csv"),
        ("BatchOperationsRole", "s3:PutObject", DATA, "batch/job-1/manifest.json"),
    ],
)
def test_a_role_may_do_its_work(stack: Stack, role: str, action: str, bucket: str, key: str | None) -> None:
    assert stack.allows(role, action, object_arn(stack, bucket, key))


@pytest.mark.parametrize(
    ("role", "action", "bucket", "key"),
    [
        ("TrainingRole", "s3:PutObject", DATA, "chest_xray/train/NORMAL/1.jpeg"),
        ("TrainingRole", "s3:DeleteObject", DATA, TRAINED),
        ("TrainingRole", "s3:GetObject", WEIGHTS, "current.json"),
        ("TrainingRole", "s3:PutObject", WEIGHTS, "current.json"),
        ("PromotionRole", "s3:GetObject", DATA, "chest_xray/train/NORMAL/1.jpeg"),
        ("PromotionRole", "s3:GetObject", DATA, f"{JOB_PREFIX}/{JOB_PREFIX}-1/output/data/metrics.json"),
        ("PromotionRole", "s3:PutObject", DATA, TRAINED),
        ("PromotionRole", "s3:PutObject", DATA, f"{FOLDER}pneumonia_classifier.pth"),
        ("PromotionRole", "s3:DeleteObject", WEIGHTS, "current.json"),
        ("InferenceRole", "s3:PutObject", WEIGHTS, "current.json"),
        ("InferenceRole", "s3:GetObject", DATA, "chest_xray/test/NORMAL/1.jpeg"),
        ("BatchRole", "s3:PutObject", DATA, "batch/job-1/manifest.json"),
        ("BatchRole", "s3:PutObject", WEIGHTS, "current.json"),
        ("BatchOperationsRole", "s3:PutObject", DATA, TRAINED),
        ("BatchOperationsRole", "s3:GetObject", DATA, "chest_xray/test/NORMAL/1.jpeg"),
    ],
)
def test_a_role_may_do_no_more(stack: Stack, role: str, action: str, bucket: str, key: str | None) -> None:
    assert not stack.allows(role, action, object_arn(stack, bucket, key))


def test_promotion_lists_model_folders_alone(stack: Stack) -> None:
    (statement,) = (
        one
        for one in stack.statements("PromotionRole")
        if one["Action"] == "s3:ListBucket" and one["Resource"] == object_arn(stack, DATA, None)
    )
    pattern = statement["Condition"]["StringLike"]["s3:prefix"]
    assert fnmatchcase(FOLDER, pattern)
    for other in ("", "chest_xray/", f"{JOB_PREFIX}/", f"{JOB_PREFIX}/{JOB_PREFIX}-1/output/"):
        assert not fnmatchcase(other, pattern)


def object_arn(stack: Stack, bucket: str, key: str | None) -> str:
    return f"arn:aws:s3:::{stack.made[bucket]}" + (f"/{key}" if key else "")


@pytest.mark.parametrize("function", ["promotion", "inference", "batch"])
def test_a_function_writes_to_its_own_log_alone(stack: Stack, function: str) -> None:
    role = f"{function.title()}Role"
    stream = f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:/aws/lambda/{{}}:log-stream:2026/11/25/[1]0123"
    assert stack.allows(role, "logs:PutLogEvents", stream.format(f"{stack.name}-{function}"))
    assert not stack.allows(role, "logs:PutLogEvents", stream.format(f"{stack.name}-other"))
    assert not stack.allows(role, "logs:CreateLogGroup", stream.format(f"{stack.name}-{function}"))


def test_batch_operations_invoke_the_batch_function_alone(stack: Stack) -> None:
    arn = f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:{stack.name}-"
    assert stack.outputs["BatchFunction"] == f"{arn}batch"
    assert stack.allows("BatchOperationsRole", "lambda:InvokeFunction", f"{arn}batch")
    assert not stack.allows("BatchOperationsRole", "lambda:InvokeFunction", f"{arn}inference")


# Buckets


@pytest.fixture(params=[DATA, WEIGHTS])
def bucket_resource(stack: Stack, request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """A bucket's name in moto and its properties in the template, with what moto's CloudFormation leaves out made."""
    name, properties = stack.made[request.param], stack.template["Resources"][request.param]["Properties"]
    assert stack.moto.s3().get_bucket_versioning(Bucket=name).get("Status") in {None, "Enabled"}
    policy = stack.resolved(stack.template["Resources"][f"{request.param}Policy"]["Properties"])
    assert policy["Bucket"] == name
    s3 = stack.moto.s3()
    s3.put_bucket_versioning(Bucket=name, VersioningConfiguration=properties["VersioningConfiguration"])
    s3.put_public_access_block(Bucket=name, PublicAccessBlockConfiguration=properties["PublicAccessBlockConfiguration"])
    s3.put_bucket_ownership_controls(Bucket=name, OwnershipControls=properties["OwnershipControls"])
    s3.put_bucket_policy(Bucket=name, Policy=json.dumps(policy["PolicyDocument"]))
    return name, properties


def test_a_bucket_is_encrypted_versioned_and_private(stack: Stack, bucket_resource: tuple[str, dict[str, Any]]) -> None:
    name, properties = bucket_resource
    s3 = stack.moto.s3()
    rules = s3.get_bucket_encryption(Bucket=name)["ServerSideEncryptionConfiguration"]["Rules"]
    assert [rule["ApplyServerSideEncryptionByDefault"]["SSEAlgorithm"] for rule in rules] == ["AES256"]
    assert s3.get_bucket_versioning(Bucket=name)["Status"] == "Enabled"
    blocked = s3.get_public_access_block(Bucket=name)["PublicAccessBlockConfiguration"]
    assert list(blocked.values()) == [True] * 4
    ownership = s3.get_bucket_ownership_controls(Bucket=name)["OwnershipControls"]["Rules"]
    assert ownership == [{"ObjectOwnership": "BucketOwnerEnforced"}]
    assert properties.keys() - BUCKET_PROPERTIES_IN_MOTO == {
        *("VersioningConfiguration", "OwnershipControls", "PublicAccessBlockConfiguration", "LifecycleConfiguration")
    }


def test_a_bucket_refuses_what_is_not_tls(stack: Stack, bucket_resource: tuple[str, dict[str, Any]]) -> None:
    name, _ = bucket_resource
    (statement,) = json.loads(stack.moto.s3().get_bucket_policy(Bucket=name)["Policy"])["Statement"]
    assert statement == {
        "Sid": "TlsOnly",
        "Effect": "Deny",
        "Principal": "*",
        "Action": "s3:*",
        "Resource": [f"arn:aws:s3:::{name}", f"arn:aws:s3:::{name}/*"],
        "Condition": {"Bool": {"aws:SecureTransport": "false"}},
    }


def test_buckets_outlive_the_stack_and_nothing_else_does() -> None:
    resources = source()["Resources"]
    kept = {name for name, one in resources.items() if one.get("DeletionPolicy", "Delete") != "Delete"}
    assert kept == {DATA, f"{DATA}Policy", WEIGHTS, f"{WEIGHTS}Policy"}
    assert {resources[name]["DeletionPolicy"] for name in kept} == {"RetainExceptOnCreate"}
    assert {resources[name]["UpdateReplacePolicy"] for name in kept} == {"Retain"}


# Functions


def test_functions_run_the_handlers_of_one_image_with_their_settings(stack: Stack) -> None:
    functions = {one["FunctionName"]: one for one in stack.client("lambda").list_functions()["Functions"]}
    bucket = stack.made[WEIGHTS]
    common = {"MODEL_BUCKET": bucket, "POWERTOOLS_METRICS_NAMESPACE": namespace(stack)}
    variables = {
        service: {
            key: str(value) for key, value in functions[f"{stack.name}-{service}"]["Environment"]["Variables"].items()
        }
        for service in ("inference", "promotion", "batch")
    }
    assert variables == {
        "inference": common | {"POWERTOOLS_SERVICE_NAME": "inference", "MODEL_REFRESH_MINUTES": "5"},
        "promotion": common | {"POWERTOOLS_SERVICE_NAME": "promotion"},
        "batch": common | {"POWERTOOLS_SERVICE_NAME": "batch"},
    }
    properties = of_type(stack.template, "AWS::Lambda::Function")
    assert {name: one.get("ImageConfig") for name, one in properties.items()} == {
        "InferenceFunction": None,  # the image's own command
        "PromotionFunction": {"Command": ["promote_model.handler"]},
        "BatchFunction": {"Command": ["pneumonia.batch.s3_operations.handler"]},
    }
    assert images(stack.template) == dict.fromkeys(properties, GIVEN["ImageUri"])
    inference = functions[f"{stack.name}-inference"]
    assert (inference["MemorySize"], inference["Timeout"]) == (2048, 60)
    assert properties["InferenceFunction"]["EphemeralStorage"] == {"Size": {"Ref": "EphemeralStorage"}}


def images(template: Template, **parameters: str) -> dict[str, str]:
    """Return the image of each function by the function's logical name, with these parameters."""
    values = {name: one.get("Default") for name, one in template["Parameters"].items()} | GIVEN | parameters
    is_onnx = holds(template["Conditions"]["IsOnnx"], values)

    found = {}
    for name, function in of_type(template, "AWS::Lambda::Function").items():
        match replaced(function["Code"]["ImageUri"], values.get):
            case {"Fn::If": ["IsOnnx", with_onnx, otherwise]}:
                found[name] = with_onnx if is_onnx else otherwise
            case str(image):
                found[name] = image
    return found


def holds(condition: dict[str, Any], values: Mapping[str, Any]) -> bool:
    """Return whether a condition of a template holds for some parameters."""
    if "Fn::Not" in condition:
        return not holds(condition["Fn::Not"][0], values)
    left, right = replaced(condition["Fn::Equals"], values.get)
    return str(left) == str(right)


@pytest.mark.parametrize("architecture", ["x86_64", "arm64"])
def test_an_engine_without_torch_leaves_promotion_its_image(architecture: str) -> None:
    onnx = {"Engine": "onnx", "OnnxImageUri": f"{GIVEN['ImageUri']}-onnx", "Architecture": architecture}
    template = transformed(**onnx)
    assert images(template, **onnx) == {
        "InferenceFunction": onnx["OnnxImageUri"],
        "BatchFunction": onnx["OnnxImageUri"],
        "PromotionFunction": GIVEN["ImageUri"],
    }
    functions = of_type(template, "AWS::Lambda::Function").values()
    assert [function["Architectures"] for function in functions] == [[{"Ref": "Architecture"}]] * 3


def test_logs_are_kept_for_a_while(stack: Stack) -> None:
    groups = stack.client("logs").describe_log_groups(logGroupNamePrefix=f"/aws/lambda/{stack.name}-")["logGroups"]
    assert {group["logGroupName"]: group["retentionInDays"] for group in groups} == {
        f"/aws/lambda/{stack.name}-{function}": 30 for function in ("batch", "inference", "promotion")
    }
    for name, function in of_type(stack.template, "AWS::Lambda::Function").items():
        assert function["LoggingConfig"] == {"LogGroup": {"Ref": name.replace("Function", "Logs")}}


def test_anyone_may_call_a_public_url_and_nobody_a_signed_one(stack: Stack, public_stack: Stack) -> None:
    function_policy = public_stack.client("lambda").get_policy(FunctionName=f"{public_stack.name}-inference")["Policy"]
    statements = json.loads(function_policy)["Statement"]
    assert {(one["Action"], one["Principal"]) for one in statements} == {
        ("lambda:InvokeFunctionUrl", "*"),
        ("lambda:InvokeFunction", "*"),
    }
    with pytest.raises(stack.client("lambda").exceptions.ResourceNotFoundException):
        stack.client("lambda").get_policy(FunctionName=f"{stack.name}-inference")


def test_what_makes_a_url_public_names_the_alias_and_holds_for_the_url_alone() -> None:
    permissions = of_type(transformed(UrlAuthorization="NONE"), "AWS::Lambda::Permission")
    public = [one for one in permissions.values() if one["Principal"] == "*"]
    assert sorted(public, key=lambda one: str(one["Action"])) == [
        {
            "FunctionName": {"Ref": "InferenceFunctionAliaslive"},
            "Action": "lambda:InvokeFunction",
            "InvokedViaFunctionUrl": True,
            "Principal": "*",
        },
        {
            "FunctionName": {"Ref": "InferenceFunctionAliaslive"},
            "Action": "lambda:InvokeFunctionUrl",
            "FunctionUrlAuthType": "NONE",
            "Principal": "*",
        },
    ]


def test_url_and_warm_instances_belong_to_the_alias() -> None:
    template = transformed()
    (url,) = of_type(template, "AWS::Lambda::Url").values()
    (alias,) = of_type(template, "AWS::Lambda::Alias").values()
    assert url["TargetFunctionArn"] == {"Ref": "InferenceFunctionAliaslive"}
    assert url["AuthType"] == {"Ref": "UrlAuthorization"}
    assert alias["Name"] == "live"
    assert alias["ProvisionedConcurrencyConfig"]["Fn::If"][:2] == [
        "HasProvisionedConcurrency",
        {"ProvisionedConcurrentExecutions": {"Ref": "ProvisionedConcurrency"}},
    ]


def test_snapshots_are_taken_of_published_versions_where_they_are_asked_for() -> None:
    template = transformed()
    functions = of_type(template, "AWS::Lambda::Function")
    assert template["Parameters"]["SnapStart"]["Default"] == "Off"  # a text: YAML would make it false
    assert template["Conditions"]["HasSnapStart"] == {"Fn::Equals": [{"Ref": "SnapStart"}, "On"]}
    assert {name: one["SnapStart"] for name, one in functions.items() if "SnapStart" in one} == {
        "InferenceFunction": {"ApplyOn": {"Fn::If": ["HasSnapStart", "PublishedVersions", "None"]}}
    }


@pytest.mark.parametrize(
    ("chosen", "refusals"),
    [
        ({}, []),
        ({"ProvisionedConcurrency": "2", "EphemeralStorage": "1024"}, []),
        ({"SnapStart": "On"}, []),
        ({"SnapStart": "On", "ProvisionedConcurrency": "2"}, ["set ProvisionedConcurrency=0"]),
        ({"SnapStart": "On", "EphemeralStorage": "513"}, ["set EphemeralStorage=512"]),
        ({"Engine": "onnx"}, ["set OnnxImageUri"]),
        ({"Engine": "onnx", "OnnxImageUri": "pneumonia:4733b0787127-onnx"}, []),
    ],
    ids=["default", "without", "alone", "warm instances", "large tmp", "no image", "both images"],
)
def test_what_does_not_go_together_is_refused(chosen: dict[str, str], refusals: list[str]) -> None:
    template = transformed(**chosen)
    values = {name: parameter.get("Default") for name, parameter in template["Parameters"].items()} | chosen
    said = [
        one["AssertDescription"]
        for rule in template["Rules"].values()
        if holds(rule["RuleCondition"], values)
        for one in rule["Assertions"]
        if not holds(one["Assert"], values)
    ]
    assert len(said) == len(refusals)
    assert all(refusal in sentence for refusal, sentence in zip(refusals, said, strict=True))


@pytest.mark.parametrize("changed", [{"Revision": "2611250413"}, {"Revision": "2611250413", "MemorySize": "3008"}])
def test_another_revision_publishes_a_version(changed: dict[str, str]) -> None:
    before, after = ({*of_type(one, "AWS::Lambda::Version")} for one in (transformed(), transformed(**changed)))
    assert len(before | after) == 2


def test_versions_take_over_by_a_canary_that_alarms_stop() -> None:
    template = transformed()
    (group,) = of_type(template, "AWS::CodeDeploy::DeploymentGroup").values()
    watched, otherwise = group["AlarmConfiguration"]["Fn::If"][1:]
    assert group["DeploymentConfigName"]["Fn::Sub"][1] == {"ConfigName": "Canary10Percent5Minutes"}
    assert "DEPLOYMENT_STOP_ON_ALARM" in group["AutoRollbackConfiguration"]["Events"]
    assert watched["Enabled"]
    assert [alarm["Name"]["Ref"] for alarm in watched["Alarms"]] == ["ErrorRateAlarm", "CrashesAlarm", "SlowAlarm"]
    assert otherwise == {}
    assert template["Conditions"]["IsWatched"] == {"Fn::Not": [{"Fn::Equals": [{"Ref": "Rollout"}, "AllAtOnce"]}]}
    assert "CodeDeployServiceRole" not in template["Resources"]  # SAM's own, with AWS's managed policy


# Promotion

RULE_ARN = {"Fn::GetAtt": ["PromotionFunctionTrainingCompleted", "Arn"]}  # SAM's name for the event's rule


def test_a_completed_job_of_this_stack_alone_triggers_the_promotion(stack: Stack) -> None:
    events, sqs = stack.client("events"), stack.client("sqs")
    rule = stack.made["PromotionFunctionTrainingCompleted"].rpartition("/")[2]
    targets = events.list_targets_by_rule(Rule=rule)["Targets"]
    assert [target["Arn"].rpartition(":")[2] for target in targets] == [f"{stack.name}-promotion"]
    # Moto invokes functions by Docker: a queue in the function's place gets what the rule lets through.
    queue = sqs.create_queue(QueueName="promotion")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    events.remove_targets(Rule=rule, Ids=[target["Id"] for target in targets])
    events.put_targets(Rule=rule, Targets=[{"Id": "queue", "Arn": arn}])
    role = stack.outputs["TrainingRole"]
    for job, status, job_role in (
        (f"{JOB_PREFIX}-20261125010203", "Completed", role),
        (f"{JOB_PREFIX}-20261125010204", "Failed", role),
        (f"{JOB_PREFIX}-20261125010205", "Completed", f"arn:aws:iam::{ACCOUNT}:role/other"),
        ("other-20261125010206", "Completed", role),
    ):
        detail = {"TrainingJobName": job, "TrainingJobStatus": status, "RoleArn": job_role}
        entry = {"Source": "aws.sagemaker", "DetailType": "SageMaker Training Job State Change"}
        events.put_events(Entries=[entry | {"Detail": json.dumps(detail)}])
    messages = sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10)["Messages"]
    names = [json.loads(message["Body"])["detail"]["TrainingJobName"] for message in messages]
    assert names == [f"{JOB_PREFIX}-20261125010203"]


def test_the_rule_alone_may_invoke_the_promotion() -> None:
    permissions = of_type(transformed(UrlAuthorization="NONE"), "AWS::Lambda::Permission")
    assert [one for one in permissions.values() if one["FunctionName"] == {"Ref": "PromotionFunction"}] == [
        {
            "FunctionName": {"Ref": "PromotionFunction"},
            "Action": "lambda:InvokeFunction",
            "Principal": "events.amazonaws.com",
            "SourceArn": RULE_ARN,
        }
    ]


def test_what_cannot_be_promoted_waits_in_a_queue(stack: Stack) -> None:
    template = stack.template
    (invoke,) = of_type(template, "AWS::Lambda::EventInvokeConfig").values()
    (rule,) = of_type(template, "AWS::Events::Rule").values()
    arn = {"Fn::GetAtt": ["PromotionFailures", "Arn"]}
    assert invoke["DestinationConfig"] == {"OnFailure": {"Destination": arn}}
    assert rule["Targets"][0]["DeadLetterConfig"] == {"Arn": arn}
    (statement,) = template["Resources"]["PromotionFailuresPolicy"]["Properties"]["PolicyDocument"]["Statement"]
    assert statement["Principal"] == {"Service": "events.amazonaws.com"}
    assert statement["Condition"] == {"ArnEquals": {"aws:SourceArn": RULE_ARN}}
    url = stack.made["PromotionFailures"]
    attributes = stack.client("sqs").get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
    assert attributes["MessageRetentionPeriod"] == str(14 * 24 * 3600)
    assert stack.allows("PromotionRole", "sqs:SendMessage", attributes["QueueArn"])


# Dashboard and alarms


def namespace(stack: Stack) -> str:
    """Return the namespace of a stack's metrics."""
    return f"Pneumonia/{stack.name}"


def dashboard(stack: Stack) -> list[dict[str, Any]]:
    """Return the dashboard's widgets, read back from CloudWatch."""
    body = stack.client("cloudwatch").get_dashboard(DashboardName=f"{stack.name}-{REGION}")["DashboardBody"]
    widgets: list[dict[str, Any]] = json.loads(body)["widgets"]
    return widgets


def metrics_of(widget: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Return namespace, name and dimension's value of each metric in a widget, with CloudWatch's shorthand undone."""
    found: list[tuple[str, str, str]] = []
    before: list[str] = []
    for row in widget["properties"].get("metrics", []):
        words = [word for word in row if isinstance(word, str)]
        if not words:  # an expression
            continue
        words = (
            before
            if words == ["..."]
            else [old if word == "." else word for word, old in zip(words, before or words, strict=True)]
        )
        found.append((words[0], words[1], words[3]))
        before = words
    return found


def test_dashboard_shows_every_metric_and_none_that_nobody_writes(stack: Stack) -> None:
    shown = {metric for widget in dashboard(stack) for metric in metrics_of(widget)}
    ours = {(namespace(stack), name, service) for service, names in METRICS.items() for name in names}
    assert {metric for metric in shown if not metric[0].startswith("AWS/")} == ours
    functions = {f"{stack.name}-{function}" for function in ("inference", "promotion", "batch")}
    assert {name for namespace, name, _ in shown if namespace == "AWS/Lambda"} <= LAMBDA_METRICS
    assert {value for namespace, _, value in shown if namespace == "AWS/Lambda"} == functions


@pytest.mark.parametrize("phase", ["Total", "Decode", "Inference", "Download", "Load"])
def test_dashboard_shows_three_percentiles_of_each_phase(stack: Stack, phase: str) -> None:
    name = f"{phase}Milliseconds"
    (widget,) = (one for one in dashboard(stack) if (namespace(stack), name, "inference") in metrics_of(one))
    assert [row[-1]["stat"] for row in widget["properties"]["metrics"]] == ["p50", "p95", "p99"]


def test_dashboards_expressions_use_what_stands_beside_them(stack: Stack) -> None:
    expressions = 0
    for widget in dashboard(stack):
        options = [row[-1] for row in widget["properties"].get("metrics", []) if isinstance(row[-1], dict)]
        identifiers = {option["id"] for option in options if "id" in option}
        for option in options:
            if "expression" in option:
                expressions += 1
                assert set(re.findall(r"[a-z]\w+", option["expression"])) <= identifiers - {option["id"]}
    assert expressions == 2  # the error rate and the share of cold starts


def test_dashboard_shows_every_alarm(stack: Stack) -> None:
    shown = next(widget["properties"]["alarms"] for widget in dashboard(stack) if widget["type"] == "alarm")
    assert sorted(shown) == sorted(f"no-{name}.Arn" for name in alarms(stack.template))  # for_moto's stand-ins


def test_alarms_watch_what_is_written(stack: Stack) -> None:
    written = {(namespace(stack), name, service) for service, names in METRICS.items() for name in names}
    written |= {("AWS/Lambda", name, "") for name in LAMBDA_METRICS}
    written |= {("AWS/SQS", "ApproximateNumberOfMessagesVisible", "")}
    for alarm in alarms(stack.template).values():
        for metric in [one["MetricStat"]["Metric"] for one in alarm.get("Metrics", []) if "MetricStat" in one] or [
            alarm
        ]:
            (dimension,) = metric["Dimensions"]
            service = dimension["Value"] if dimension["Name"] == "service" else ""
            assert (stack.resolved(metric["Namespace"]), metric["MetricName"], service) in written


def test_cloudwatch_takes_every_alarm(stack: Stack) -> None:
    cloudwatch = stack.client("cloudwatch")
    for alarm in alarms(stack.template).values():
        properties = stack.resolved(alarm)
        properties["Threshold"] = float(properties["Threshold"])
        cloudwatch.put_metric_alarm(**properties)
    put = cloudwatch.describe_alarms(AlarmNamePrefix=f"{stack.name}-")["MetricAlarms"]
    assert len(put) == len(alarms(stack.template)) == 11
    for alarm in put:
        assert alarm["AlarmActions"] == [stack.outputs["AlarmTopic"]]
        assert alarm["TreatMissingData"] == "notBreaching"
        expressions = [one for one in alarm.get("Metrics", []) if "Expression" in one]
        identifiers = {one["Id"] for one in alarm.get("Metrics", [])}
        for one in expressions:
            assert set(re.findall(r"[a-z]\w+", one["Expression"])) <= identifiers - {one["Id"]}
        assert len([one for one in alarm.get("Metrics", []) if one.get("ReturnData", True)]) == bool(expressions)


def test_every_alarm_is_explained_in_operations() -> None:
    operations = (PROJECT / "docs/operations.md").read_text()
    names = [alarm["AlarmName"]["Fn::Sub"].removeprefix("${AWS::StackName}-") for alarm in alarms(source()).values()]
    assert [name for name in names if f"\n### `{name}`\n" not in operations] == []
