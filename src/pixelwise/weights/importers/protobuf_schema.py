"""Protobuf messages without generated code, from a schema of a few lines.

Fields that the schema does not declare are skipped.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pixelwise.errors import needs_package

# (field, number, type) of each message, with "*" after the type of repeated fields. A type is the
# name of another message, or one of protobuf's as in FieldDescriptorProto.
Schema = Mapping[str, tuple[tuple[str, int, str], ...]]


def message_classes(
    schema: Schema, *, package: str, path: Path, reason: str
) -> tuple[dict[str, Any], type[Exception]]:
    """Create the classes of a schema's messages.

    Args:
        schema: The messages.
        package: Package name of the .proto file.
        path: File to be read, for the error message.
        reason: What needs protobuf, for the error message.

    Returns:
        The classes by name, and the exception that their `FromString` raises.

    Raises:
        InputError: If protobuf is not installed.
    """
    with needs_package(f"{path}: reading {reason} needs protobuf: run `pip install 'protobuf>=6'`"):
        from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
        from google.protobuf.message import DecodeError
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(
        name=f"pixelwise/{package}.proto", package=package, syntax="proto2"
    )
    for name, fields in schema.items():
        message = file.message_type.add(name=name)
        for label, number, kind in fields:
            bare = kind.removesuffix("*")
            one = message.field.add(name=label, number=number)
            one.label = field.LABEL_OPTIONAL if kind == bare else field.LABEL_REPEATED
            if bare in schema:
                one.type, one.type_name = field.TYPE_MESSAGE, f".{package}.{bare}"
            else:
                one.type = getattr(field, f"TYPE_{bare}")
    pool = descriptor_pool.DescriptorPool()  # private: other packages may register the same .proto
    pool.AddSerializedFile(file.SerializeToString())
    classes = {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.{name}"))
        for name in schema
    }
    return classes, DecodeError
