"""Python's grpcio, with messages made from the contracts' descriptor set."""

import json
import os
import subprocess
import sys
import tempfile
import threading
import uuid
from pathlib import Path

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory

HERE = Path(__file__).parent
ROOT = HERE.parent.parent / "proto"
GIVEN = json.loads(os.environ["GAVEL_INTEROP"])
SCENARIOS = json.loads((HERE / "scenarios.json").read_text())["scenarios"]
PATIENCE_S = 20


def contracts() -> descriptor_pool.DescriptorPool:
    """Every message and service, as protoc reads them."""
    with tempfile.NamedTemporaryFile(suffix=".fds") as file:
        names = [f"gavel/v1/{name}.proto" for name in ("item", "bid", "user", "ops", "errors")]
        subprocess.run(["protoc", f"-I{ROOT}", "--include_imports", f"--descriptor_set_out={file.name}", *names], check=True)
        files = descriptor_pb2.FileDescriptorSet.FromString(Path(file.name).read_bytes())
    pool = descriptor_pool.DescriptorPool()
    for each in files.file:
        pool.Add(each)
    return pool


POOL = contracts()


def message(name: str) -> type:
    return message_factory.GetMessageClass(POOL.FindMessageTypeByName(name))


def details_of(error: grpc.RpcError) -> dict:
    """The BidRefused among the details of google.rpc.Status: field 3, each an Any of a name and a value."""
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            for entry in fields(value, 3):
                name = next(fields(entry, 1)).decode()
                if name.endswith("/gavel.v1.BidRefused"):
                    return {"BidRefused": as_json(message("gavel.v1.BidRefused").FromString(next(fields(entry, 2))))}
    return {}


def fields(data: bytes, wanted: int):
    """The length-delimited fields of that number."""
    at = 0

    def varint() -> int:
        nonlocal at
        number, shift = 0, 0
        while True:
            byte = data[at]
            at += 1
            number |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return number

    while at < len(data):
        tag = varint()
        if tag & 7 == 2:
            size = varint()
            if tag >> 3 == wanted:
                yield data[at : at + size]
            at += size
        else:
            varint()


def as_json(seen) -> dict:
    return json_format.MessageToDict(seen)


def fill(value, names: dict):
    if isinstance(value, list):
        return [fill(entry, names) for entry in value]
    if isinstance(value, dict):
        return {key: fill(entry, names) for key, entry in value.items()}
    if value == "$uuid":
        return str(uuid.uuid4())
    if value == "$large":
        return "x" * 100 * 1024
    return names[value[1:]] if isinstance(value, str) and value.startswith("$") else value


def holds(expected, seen) -> bool:
    if isinstance(expected, dict):
        return isinstance(seen, dict) and all(key in seen and holds(entry, seen[key]) for key, entry in expected.items())
    if isinstance(expected, list):
        return isinstance(seen, list) and all(any(holds(entry, candidate) for candidate in seen) for entry in expected)
    return expected == seen


def frames_hold(expected: list, frames: list) -> bool:
    following = 0
    for frame in frames:
        if following < len(expected) and holds(expected[following], frame):
            following += 1
        elif "heartbeat" not in frame:
            return False
    return following == len(expected)


def call(channel: grpc.Channel, scenario: dict, request: dict, expect: dict) -> dict:
    service, name = scenario["method"].split("/")
    method = POOL.FindServiceByName(f"gavel.v1.{service}").methods_by_name[name]
    encoded = json_format.ParseDict(request, message(method.input_type.full_name)())
    kind = channel.unary_stream if scenario.get("stream") else channel.unary_unary
    reply_type = message(method.output_type.full_name)
    stub = kind(
        f"/gavel.v1.{service}/{name}", request_serializer=type(encoded).SerializeToString, response_deserializer=reply_type.FromString
    )
    token = GIVEN["tokens"].get(scenario.get("as"))
    metadata = [("authorization", f"Bearer {token}")] if token else []
    timeout = scenario["timeoutMs"] / 1000 if "timeoutMs" in scenario else PATIENCE_S
    frames: list = []
    try:
        if scenario.get("stream"):
            running = stub(encoded, metadata=metadata, timeout=timeout)
            for frame in running:
                frames.append(as_json(frame))
                if "frames" in expect and frames_hold(expect["frames"], frames):
                    running.cancel()
                    break
            return {"code": "ok", "frames": frames}
        running = stub.future(encoded, metadata=metadata, timeout=timeout)
        if "cancelAfterMs" in scenario:
            threading.Timer(scenario["cancelAfterMs"] / 1000, running.cancel).start()
        return {"code": "ok", "reply": as_json(running.result())}
    except grpc.FutureCancelledError:
        return {"code": "canceled"}
    except grpc.RpcError as error:
        code = error.code().name.lower().replace("cancelled", "canceled")
        return {"code": code, "message": error.details(), "frames": frames, "details": details_of(error)}


def fault(expect: dict, seen: dict):
    code = expect.get("code", "ok")
    if seen["code"] != code:
        return f"ended with {seen['code']} ({seen.get('message')}) instead of {code}"
    if "message" in expect and expect["message"] not in seen["message"]:
        return f"said {seen['message']}"
    if "reply" in expect and not holds(expect["reply"], seen["reply"]):
        return f"replied {seen['reply']}"
    if "frames" in expect and not frames_hold(expect["frames"], seen["frames"]):
        return f"streamed {seen['frames']}"
    if "detail" in expect and not holds(expect["detail"]["value"], seen["details"].get(expect["detail"]["type"], {})):
        return f"had the details {seen['details']}"
    return None


def main() -> int:
    address = GIVEN["url"].split("//")[1]
    if GIVEN.get("ca"):
        channel = grpc.secure_channel(address, grpc.ssl_channel_credentials(GIVEN["caText"].encode()))
    else:
        channel = grpc.insecure_channel(address)
    inside = grpc.insecure_channel(GIVEN["opsUrl"].split("//")[1])
    names, failed = dict(GIVEN["names"]), 0
    for scenario in SCENARIOS:
        expect = fill(scenario["expect"], names)
        seen = call(inside if scenario["method"].startswith("OpsService/") else channel, scenario, fill(scenario["request"], names), expect)
        wrong = fault(expect, seen)
        if wrong:
            failed += 1
            print(f"grpcio: {scenario['name']} ({scenario['method']}): {wrong}")
        for name, path in scenario.get("save", {}).items():
            value = seen.get("reply")
            for key in path.split("."):
                value = (value or {}).get(key)
            names[name] = value
    print(f"grpcio: {len(SCENARIOS) - failed} of {len(SCENARIOS)} scenarios are as they should be")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
