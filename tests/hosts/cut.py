"""A machine is cut off for 30 seconds while a job runs on it: another machine's worker takes the job, and what the first one writes when it
is back is refused. The model has the bits of a job that nobody disturbed.

Each machine is a network namespace with a host name of its own; none has a way to this one's network.
"""

import atexit
import contextlib
import glob
import hashlib
import json
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PROGRAM = sys.argv[1]
CUT_FOR = 30
LEASE = 8
EPOCHS = 1500
KEY = 'engraft_' + '5' * 64
NETWORK = '10.213.7'
MACHINES = {'state': 1, 'server': 2, 'one': 3, 'two': 4}
PREFIX = f'engraft{os.getpid() % 10000}'

folder = Path(tempfile.mkdtemp())
folder.chmod(0o711)
processes: list[subprocess.Popen] = []


def run(*command: str) -> None:
    subprocess.run(command, check=True)


def within(machine: str) -> list[str]:
    """The words before a command that is to run on a machine, under the machine's name."""
    return ['ip', 'netns', 'exec', f'{PREFIX}-{machine}', 'unshare', '--uts', 'sh', '-c', f'hostname {machine}; exec "$@"', 'sh']


def start(machine: str, *command: str, **variables: str) -> subprocess.Popen:
    """A process on a machine, which logs to a file of its own."""
    log = (folder / f'{machine}.log').open('ab')
    process = subprocess.Popen([*within(machine), *command], stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=os.environ | variables)
    processes.append(process)
    return process


def clear() -> None:
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + 10
    for process in processes:
        try:
            process.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
    postgres('-m', 'immediate', 'stop', check=False)
    for machine in MACHINES:
        subprocess.run(['ip', 'netns', 'delete', f'{PREFIX}-{machine}'], check=False, stderr=subprocess.DEVNULL)
    shutil.rmtree(folder, ignore_errors=True)


def network() -> None:
    """A switch on the first machine, and a cable from it to each of the others."""
    for machine in MACHINES:
        run('ip', 'netns', 'add', f'{PREFIX}-{machine}')
        run(*within(machine), 'ip', 'link', 'set', 'lo', 'up')
    state = within('state')
    run(*state, 'ip', 'link', 'add', 'switch', 'type', 'bridge')
    run(*state, 'ip', 'address', 'add', f'{NETWORK}.1/24', 'dev', 'switch')
    run(*state, 'ip', 'link', 'set', 'switch', 'up')
    for machine, number in MACHINES.items():
        if machine == 'state':
            continue
        run(*state, 'ip', 'link', 'add', machine, 'type', 'veth', 'peer', 'name', 'cable', 'netns', f'{PREFIX}-{machine}')
        run(*state, 'ip', 'link', 'set', machine, 'master', 'switch')
        run(*state, 'ip', 'link', 'set', machine, 'up')
        run(*within(machine), 'ip', 'address', 'add', f'{NETWORK}.{number}/24', 'dev', 'cable')
        run(*within(machine), 'ip', 'link', 'set', 'cable', 'up')


def plug(machine: str, state: str) -> None:
    """Plugs a machine's cable in (`up`) or out (`down`): nobody gets an error from that, only silence."""
    run(*within('state'), 'ip', 'link', 'set', machine, state)


def postgres(*arguments: str, check: bool = True) -> None:
    programs = sorted(glob.glob('/usr/lib/postgresql/*/bin'))[-1]
    command = [f'{programs}/pg_ctl', '-D', str(folder / 'data'), '-w', '-l', str(folder / 'postgres.log'), *arguments]
    subprocess.run([*within('state'), 'runuser', '-u', 'postgres', '--', *command], check=check, cwd='/', stdout=subprocess.DEVNULL)


def state() -> dict[str, str]:
    """Starts PostgreSQL and a bucket, and says how they are reached."""
    shutil.chown(folder, 'postgres')
    postgres('initdb', '-o', '-U engraft -A trust')
    with (folder / 'data' / 'pg_hba.conf').open('a') as rules:
        rules.write(f'host all all {NETWORK}.0/24 trust\n')
    postgres('-o', f'-k {folder} -c listen_addresses={NETWORK}.1', 'start')
    start('state', str(Path(sys.executable).with_name('moto_server')), '-H', f'{NETWORK}.1', '-p', '5000')
    endpoint = f'http://{NETWORK}.1:5000'
    eventually('the bucket', lambda: curl('state', '-X', 'PUT', f'{endpoint}/models') is not None)
    return {
        'ENGRAFT_DATABASE': f'postgres://engraft@{NETWORK}.1/postgres',
        'ENGRAFT_BLOBS': 's3://models/engraft',
        'AWS_ENDPOINT_URL': endpoint,
        'AWS_ACCESS_KEY_ID': 'test',
        'AWS_SECRET_ACCESS_KEY': 'test',
        'AWS_REGION': 'us-east-1',
    }


def curl(machine: str, *arguments: str) -> bytes | None:
    """What is answered; none for a failure."""
    done = subprocess.run([*within(machine), 'curl', '-fsS', '--max-time', '20', *arguments], capture_output=True, check=False)
    return done.stdout if done.returncode == 0 else None


def ask(path: str, *arguments: str):
    """The server's answer, as somebody on the machine `state` gets it."""
    answer = curl('state', '-H', f'Authorization: Bearer {KEY}', *arguments, f'http://{NETWORK}.2:8080{path}')
    assert answer is not None, f'{path} has no answer'
    return json.loads(answer)


def eventually(what: str, ready, patience: float = 120):
    """What `ready` says as soon as it says something."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        if found := ready():
            return found
        time.sleep(0.2)
    logs = '\n'.join(f'{log.name}\n' + ''.join(log.read_text(errors='replace').splitlines(True)[-30:]) for log in folder.glob('*.log'))
    sys.exit(f'{what} does not come\n{logs}')


def safetensors(tensors: dict[str, tuple[str, list[int], bytes]]) -> bytes:
    header, data = {}, b''
    for name, (dtype, shape, bytes_) in tensors.items():
        header[name] = {'dtype': dtype, 'shape': shape, 'data_offsets': [len(data), len(data) + len(bytes_)]}
        data += bytes_
    text = json.dumps(header).encode()
    return struct.pack('<Q', len(text)) + text + data


def member(seed: int) -> bytes:
    chance = random.Random(seed)
    shapes = {'fc1.weight': [96, 144], 'fc1.bias': [96], 'fc2.weight': [96, 96], 'fc2.bias': [96], 'fc3.weight': [10, 96], 'fc3.bias': [10]}
    weights = lambda count: struct.pack(f'<{count}f', *(chance.uniform(-0.1, 0.1) for _ in range(count)))
    return safetensors({name: ('F32', shape, weights(shape[0] * (shape[1:] or [1])[0])) for name, shape in shapes.items()})


def dataset() -> bytes:
    chance = random.Random(7)
    tensors = {}
    for suffix, count in [('', 4096), ('_test', 256)]:
        tensors['x' + suffix] = ('U8', [count, 1, 12, 12], chance.randbytes(count * 144))
        tensors['y' + suffix] = ('U8', [count], bytes(chance.randrange(10) for _ in range(count)))
    return safetensors(tensors)


def upload(path: str, data: bytes) -> None:
    (folder / 'upload').write_bytes(data)
    ask(path, '-T', str(folder / 'upload'))


def post() -> str:
    body = {
        'members': ['m0.safetensors', 'm1.safetensors'], 'architecture': {'assume': True}, 'device': 'cpu', 'seed': 1,
        'dataset': {'name': 'noise.safetensors', 'validation_fraction': 0.1},
        'finetune': {'epochs': EPOCHS, 'batch_size': 512}, 'evaluate': ['members', 'ensemble', 'fused'],
    }
    return ask('/v1/jobs', '--json', json.dumps(body))['id']


def ended(job: str) -> dict:
    view = eventually('the end of the job', lambda: (view := ask(f'/v1/jobs/{job}'))['state'] in ('succeeded', 'failed', 'cancelled') and view, 600)
    assert view['state'] == 'succeeded', view
    return view


def digest(job: str) -> str:
    model = curl('state', '-H', f'Authorization: Bearer {KEY}', f'http://{NETWORK}.2:8080/v1/jobs/{job}/model')
    assert model, 'the model'
    return hashlib.sha256(model).hexdigest()


def runs_at(job: str) -> str | None:
    """The machine that runs the job."""
    return next((worker['host'] for worker in ask('/v1/workers')['data'] if any(one['id'] == job for one in worker['jobs'])), None)


def events_of(job: str) -> list[dict]:
    events: list[dict] = []
    while page := ask(f'/v1/jobs/{job}/events?limit=1000&after={len(events)}')['data']:
        events += page
    return events


def log(machine: str) -> str:
    return (folder / f'{machine}.log').read_text(errors='replace')


def main() -> None:
    atexit.register(clear)
    network()
    variables = state()
    start('server', PROGRAM, 'serve', '--listen', '0.0.0.0:8080', '--workers', '0', '--expect-device', 'cpu', '--data-dir', str(folder / 'server'), **variables, ENGRAFT_API_KEY=KEY)
    eventually('the server', lambda: curl('state', f'http://{NETWORK}.2:8080/readyz'))
    for seed in range(2):
        upload(f'/v1/checkpoints/m{seed}.safetensors', member(seed))
    upload('/v1/datasets/noise.safetensors', dataset())
    worker = lambda machine: start(machine, PROGRAM, 'worker', '--workers', '1', '--threads', '1', '--device', 'cpu', '--lease', str(LEASE), '--heartbeat', '2', '--data-dir', str(folder / machine), **variables)
    workers = {machine: worker(machine) for machine in ('one', 'two')}
    undisturbed = post()
    began = time.monotonic()
    assert ended(undisturbed)['attempt'] == 1
    print(f'undisturbed: {time.monotonic() - began:.0f} s', flush=True)

    job = post()
    victim = eventually('a machine that runs the job', lambda: runs_at(job))
    other = {'one': 'two', 'two': 'one'}[victim]
    eventually('an epoch', lambda: (ask(f'/v1/jobs/{job}')['progress'] or {}).get('phase') == 'finetune')
    time.sleep(2)
    plug(victim, 'down')
    cut = time.monotonic()
    eventually(f'the job at {other}', lambda: runs_at(job) == other)
    taken = time.monotonic() - cut
    print(f'{victim} is cut off; {other} has the job after {taken:.1f} s (the lease is {LEASE} s)', flush=True)
    assert taken < CUT_FOR, 'it goes elsewhere while the machine is away'
    time.sleep(max(0.0, CUT_FOR - (time.monotonic() - cut)))
    plug(victim, 'up')
    view = ended(job)
    assert view['attempt'] == 2, view
    assert digest(job) == digest(undisturbed), 'the same bits'
    events = events_of(job)
    assert [event['seq'] for event in events] == list(range(1, len(events) + 1)), 'no gap'
    epochs = [event['data']['epoch'] for event in events if event['type'] == 'metric']
    assert epochs == list(range(EPOCHS + 1)), 'each epoch is told once'
    assert [event['data']['state'] for event in events if event['type'] == 'state'] == ['queued', 'running', 'queued', 'running', 'succeeded']
    assert 'lost' in log(victim) or 'taken over' in log(victim), log(victim)

    # The machine is back as if nothing had been.
    workers[other].send_signal(signal.SIGTERM)
    assert workers[other].wait(60) == 0
    last = post()
    eventually(f'{victim} at work again', lambda: runs_at(last) == victim)
    assert ended(last)['attempt'] == 1
    assert digest(last) == digest(undisturbed)
    print('its late writes were refused, the model has the same bits, and it works again')
    for line in log(victim).splitlines():
        if 'lost' in line or 'taken over' in line or 'could not' in line:
            print('   ', line[:200])


main()
