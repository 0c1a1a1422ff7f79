"""The curl cycle where the blobs are in a bucket of moto, an S3 service that is not the one of the other tests; and keys that are given for a token."""

import hashlib
import http.server
import json
import logging
import os
import random
import re
import signal
import ssl
import struct
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

from moto.server import ThreadedMotoServer

PROGRAM = sys.argv[1]
MIB = 1 << 20
ROLE = 'arn:aws:iam::123456789012:role/engraft'


class Unredirected(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_):
        return None


def ask(method: str, url: str, data: bytes | None = None, **headers: str) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of the answer; redirections are not followed."""
    if data is not None:
        headers.setdefault('Content_Type', 'application/octet-stream')
    request = urllib.request.Request(url, data, {name.replace('_', '-'): value for name, value in headers.items()}, method=method)
    try:
        with urllib.request.build_opener(Unredirected).open(request, timeout=60) as answer:
            return answer.status, {name.lower(): value for name, value in answer.headers.items()}, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, {name.lower(): value for name, value in error.headers.items()}, error.read()


def good(answer: tuple[int, dict[str, str], bytes]) -> bytes:
    assert answer[0] < 300, answer
    return answer[2]


def member(seed: int, width: int) -> bytes:
    """A perceptron of one hidden layer with `width` units."""
    chance = random.Random(seed)
    shapes = {'fc1.weight': [width, 1024], 'fc1.bias': [width], 'fc2.weight': [10, width], 'fc2.bias': [10]}
    header, data = {}, b''
    for name, shape in shapes.items():
        count = shape[0] * (shape[1:] or [1])[0]
        part = struct.pack('<f', chance.uniform(-0.1, 0.1)) * 8 + struct.pack('<f', 0.01) * (count - 8)
        header[name] = {'dtype': 'F32', 'shape': shape, 'data_offsets': [len(data), len(data) + len(part)]}
        data += part
    text = json.dumps(header).encode()
    return struct.pack('<Q', len(text)) + text + data


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        logging.getLogger('werkzeug').setLevel(logging.ERROR)
        moto = ThreadedMotoServer('127.0.0.1', 0, verbose=False)
        moto.start()
        host, port = moto.get_host_and_port()
        endpoint = f'http://{host}:{port}'
        good(ask('PUT', f'{endpoint}/models'))
        variables = os.environ | {
            'AWS_ENDPOINT_URL': endpoint, 'AWS_REGION': 'us-east-1', 'AWS_ACCESS_KEY_ID': 'test', 'AWS_SECRET_ACCESS_KEY': 'test',
            'ENGRAFT_BLOBS': 's3://models/engraft', 'ENGRAFT_DATABASE': f'sqlite:{folder}/state.db', 'ENGRAFT_PRESIGN': 'on',
        }
        log = Path(folder, 'log').open('a')
        run = lambda *words, variables=variables: subprocess.Popen([PROGRAM, *words], env=variables, stdout=subprocess.PIPE, stderr=log, text=True)
        server = run('serve', '--listen', '127.0.0.1:0', '--workers', '0', '--expect-device', 'cpu', '--data-dir', f'{folder}/server')
        try:
            url = re.search('http://[0-9.:]+', server.stdout.readline())[0]
            cycle(url, endpoint, lambda *words: run(*words, '--data-dir', f'{folder}/worker'))
            pod(folder, variables, lambda *words, **more: run(*words, '--data-dir', f'{folder}/worker', **more))
        except BaseException:
            print(Path(folder, 'log').read_text(), file=sys.stderr)
            raise
        finally:
            server.send_signal(signal.SIGTERM)
            assert server.wait(30) == 0
            moto.stop()


class Tokens(http.server.BaseHTTPRequestHandler):
    """Gives the keys of a role for the token of the cluster: moto finds such requests in bodies only."""

    def do_POST(self) -> None:
        asked = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)
        known = asked.get('Action') == ['AssumeRoleWithWebIdentity'] and asked.get('WebIdentityToken') == ['a token of the cluster'] and asked.get('RoleArn') == [ROLE]
        keys = '<AccessKeyId>ASIATEST</AccessKeyId><SecretAccessKey>test</SecretAccessKey><SessionToken>session</SessionToken><Expiration>2099-01-01T00:00:00Z</Expiration>'
        result = f'<AssumeRoleWithWebIdentityResult><Credentials>{keys}</Credentials></AssumeRoleWithWebIdentityResult>'
        body = f'<AssumeRoleWithWebIdentityResponse>{result}</AssumeRoleWithWebIdentityResponse>'.encode() if known else b'<ErrorResponse/>'
        self.send_response(200 if known else 403)
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_) -> None:
        pass


def pod(folder: str, variables: dict[str, str], run) -> None:
    """A pod of Kubernetes has no keys, but a token for which a service that speaks TLS gives it those of a role."""
    certificate, key, token = (str(Path(folder, name)) for name in ('certificate', 'key', 'token'))
    Path(token).write_text('a token of the cluster')
    made = ['openssl', 'req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-keyout', key, '-out', certificate, '-subj', '/CN=tokens', '-days', '2']
    subprocess.run([*made, '-addext', 'subjectAltName=IP:127.0.0.1', '-addext', 'basicConstraints=critical,CA:FALSE'], check=True, capture_output=True)
    service = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Tokens)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    service.socket = context.wrap_socket(service.socket, server_side=True)
    threading.Thread(target=service.serve_forever, daemon=True).start()
    port = service.server_port
    try:
        role = {
            'AWS_WEB_IDENTITY_TOKEN_FILE': token, 'AWS_ROLE_ARN': ROLE,
            'AWS_ENDPOINT_URL_STS': f'https://127.0.0.1:{port}', 'SSL_CERT_FILE': certificate,
        }
        unknown = {name: value for name, value in variables.items() if 'ACCESS_KEY' not in name}
        assert run('verify', variables=unknown | role).wait(60) == 0, 'a role by a token'
        assert run('verify', variables=unknown | role | {'AWS_WEB_IDENTITY_TOKEN_FILE': f'{token}s'}).wait(60) != 0, 'no token'
        Path(token).write_text('another token')
        assert run('verify', variables=unknown | role).wait(60) != 0, 'a token that gives no role'
    finally:
        service.shutdown()


def cycle(url: str, endpoint: str, run) -> None:
    # More than two parts of a multipart upload, in three requests of which none ends at a part's end.
    large = member(0, 4600)
    assert len(large) > 17 * MIB
    for begin, end in [(0, 5 * MIB), (5 * MIB, 13 * MIB + 7), (13 * MIB + 7, len(large))]:
        good(ask('PUT', f'{url}/v1/checkpoints/m0.safetensors', large[begin:end], Content_Range=f'bytes {begin}-{end - 1}/{len(large)}'))
    # Straight to the bucket.
    other = member(1, 4600)
    metadata = ','.join(f'{name} {value}' for name, value in {'kind': 'Y2hlY2twb2ludA==', 'name': 'bTEuc2FmZXRlbnNvcnM='}.items())
    begun = json.loads(good(ask('POST', f'{url}/v1/uploads?presign=true', Tus_Resumable='1.0.0', Upload_Length=str(len(other)), Upload_Metadata=metadata)))
    tags = []
    for number, part in enumerate(begun['parts']):
        sent = other[number * begun['part_bytes']:(number + 1) * begun['part_bytes']]
        status, headers, body = ask('PUT', part, sent)
        assert status == 200, body
        tags.append(headers['etag'])
    complete = lambda tags: ask('POST', f"{url}/v1/uploads/{begun['id']}/complete", json.dumps({'etags': tags}).encode(), Content_Type='application/json')
    assert complete(['"0"'] * len(tags))[0] == 409, 'other parts'
    good(complete(tags))
    for name, data in [('m0', large), ('m1', other)]:
        assert good(ask('GET', f'{url}/v1/checkpoints/{name}.safetensors/content')) == data
    status, _, part = ask('GET', f'{url}/v1/checkpoints/m0.safetensors/content', Range=f'bytes={9 * MIB}-{9 * MIB + 99}')
    assert (status, part) == (206, large[9 * MIB:9 * MIB + 100])

    job = json.dumps({'members': ['m0.safetensors', 'm1.safetensors'], 'architecture': {'assume': True}, 'device': 'cpu'}).encode()
    job = json.loads(good(ask('POST', f'{url}/v1/jobs', job, Content_Type='application/json')))['id']
    worker = run('worker', '--once', '--idle-exit', '1m', '--device', 'cpu')
    assert worker.wait(300) == 0
    view = json.loads(good(ask('GET', f'{url}/v1/jobs/{job}')))
    assert view['state'] == 'succeeded', view
    digest = good(ask('GET', f'{url}/v1/jobs/{job}/model.sha256')).decode().split()[0]
    status, headers, _ = ask('GET', f'{url}/v1/jobs/{job}/model')
    assert (status, headers['location'].startswith(endpoint)) == (307, True), headers
    assert hashlib.sha256(good(ask('GET', headers['location']))).hexdigest() == digest
    assert ask('GET', headers['location'].replace('engraft', 'other'))[0] >= 400, 'the signature is for one object'
    assert len(good(ask('GET', f'{url}/v1/jobs/{job}/report'))) > 100

    verify = run('verify')
    assert verify.wait(120) == 0, verify.stdout.read()
    good(ask('DELETE', f'{url}/v1/jobs/{job}'))
    good(ask('DELETE', f'{url}/v1/checkpoints/m1.safetensors'))
    assert ask('GET', f'{url}/v1/checkpoints/m1.safetensors/content')[0] == 404
    keys = re.findall('<Key>([^<]*)', good(ask('GET', f'{endpoint}/models?list-type=2')).decode())
    deadline = time.monotonic() + 30
    while len([key for key in keys if key.startswith(('engraft/checkpoints', 'engraft/jobs'))]) > 1 and time.monotonic() < deadline:
        time.sleep(0.2)
        keys = re.findall('<Key>([^<]*)', good(ask('GET', f'{endpoint}/models?list-type=2')).decode())
    assert sorted(key.split('/')[1] for key in keys) == ['checkpoints', 'identity'], keys
    print(f'two members of {len(large) / MIB:.0f} MiB, in parts and by signed addresses; a model from the bucket; {len(keys)} objects are left')


main()
