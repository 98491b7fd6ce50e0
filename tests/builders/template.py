"""template.yaml as data, and the metrics that it is about."""

from typing import Any

from samtranslator.yaml_helper import yaml_parse

from tests.builders.checkout import PROJECT

Template = dict[str, Any]

# What the functions write, in embedded metric format.
METRICS = {
    "inference": {
        *("Requests", "ClientErrors", "ServerErrors", "ColdStart", "LoadFailures", "RefreshFailures"),
        *("TotalMilliseconds", "DecodeMilliseconds", "InferenceMilliseconds"),
        *("DownloadMilliseconds", "LoadMilliseconds"),
        *("Pneumonia", "Confidence", "Uncertain", "NotAChestXray", "ImageBytes", "ImagePixels"),
    },
    "promotion": {"Promotions", "PromotionsRefused", "PromotionsNotServed"},
}


def source() -> Template:
    """Return template.yaml as it is written."""
    template: Template = yaml_parse((PROJECT / "template.yaml").read_text())
    return template


def of_type(template: Template, kind: str) -> dict[str, dict[str, Any]]:
    """Return the properties of the resources of one type by their logical names."""
    return {
        name: resource["Properties"] for name, resource in template["Resources"].items() if resource["Type"] == kind
    }


def alarms(template: Template) -> dict[str, dict[str, Any]]:
    """Return the properties of the alarms by their logical names."""
    return of_type(template, "AWS::CloudWatch::Alarm")
