"""Messages of protobuf without generated code: a schema of a few lines, read by protobuf itself.

Fields that are not declared are skipped.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pixelwise.errors import InputError

# Message: (field, number, type) with "*" where it is repeated; a type is another message's name or
# one of protobuf's, as in FieldDescriptorProto.
Schema = Mapping[str, tuple[tuple[str, int, str], ...]]


def message_classes(
    schema: Schema, *, package: str, path: Path, reason: str
) -> tuple[dict[str, Any], type[Exception]]:
    """The schema's messages by name, and the error that their `FromString` raises.

    package: of the .proto file, `path`: the file to be read and `reason`: what in it, for messages.
    Raises InputError where protobuf is not installed.
    """
    try:
        from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
        from google.protobuf.message import DecodeError
    except ImportError as error:
        raise InputError(
            f"{path}: reading {reason} needs protobuf: run `pip install 'protobuf>=6'`"
        ) from error
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
    pool = descriptor_pool.DescriptorPool()  # of its own: others may know such a .proto too
    pool.AddSerializedFile(file.SerializeToString())
    classes = {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.{name}"))
        for name in schema
    }
    return classes, DecodeError
