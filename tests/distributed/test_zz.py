import os, signal, time, random
from tests.distributed.forked import start, wait_for, start_ranks
from tests.distributed.test_training import words, after_steps
def test_a(tmp_path):
    run = tmp_path/"run"
    W = [*words(tmp_path,"run"), "training.steps=1000"]
    start(tmp_path/"s","build-shards",*W).end()
    start(tmp_path/"s","fit-embedding",*W).end()
    for i in range(8):
        told = after_steps(run, 4)
        r = start_ranks(2, tmp_path/"s","train",*W)
        wait_for(told); time.sleep(random.uniform(0,.5))
        v = i%2
        t=time.monotonic()
        os.kill(r[v].pid, signal.SIGKILL)
        try:
            e = r[1-v].end(12)
            print(v, round(time.monotonic()-t,2), e.code, e.errors)
        except AssertionError as x:
            print(v, "HANG", str(x)[:300])
        r[v].end()
