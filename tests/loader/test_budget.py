"""The byte budget: never over the limit, first come first served, nothing lost on any way out."""

import os
import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from robocache.errors import ArgumentError, BudgetError, ClosedError
from robocache.loader.budget import ByteBudget
from robocache.testing import wait_until

pytestmark = pytest.mark.timeout(60)


def test_bytes_are_counted_and_given_back():
    budget = ByteBudget(10)
    assert budget.acquire(4)
    assert budget.acquire(6)
    assert budget.statistics().used_bytes == 10
    budget.release(4)
    seen = budget.statistics()
    assert (seen.used_bytes, seen.peak_bytes, seen.limit_bytes, seen.granted, seen.waits) == (6, 10, 10, 2, 0)


def test_a_large_claim_is_not_overtaken_by_a_small_one():
    budget = ByteBudget(10)
    budget.acquire(4)
    large = budget.claim(7)
    small = budget.claim(1)  # would fit now, and must not
    assert (large.state, small.state) == ("waiting", "waiting")
    assert budget.statistics().is_full_and_waited_for
    assert budget.statistics().waiting_bytes == 8
    budget.release(4)
    assert (large.state, small.state) == ("held", "held")
    assert not budget.statistics().is_full_and_waited_for


def test_leaving_the_line_lets_the_next_one_in():
    budget = ByteBudget(10)
    budget.acquire(4)
    large, small = budget.claim(7), budget.claim(1)
    large.release()
    assert small.wait()
    assert budget.statistics().used_bytes == 5
    with pytest.raises(ClosedError, match=r"^the claim of 7 bytes was released$"):
        large.wait()


def test_a_wait_that_times_out_holds_nothing():
    budget = ByteBudget(10)
    budget.acquire(10)
    assert budget.acquire(1, timeout_s=0) is False
    assert budget.statistics().waiting == 0
    claim = budget.claim(1)
    assert claim.wait(timeout_s=0) is False
    assert claim.state == "waiting"


def test_releasing_a_claim_twice_is_releasing_it_once():
    budget = ByteBudget(10)
    with budget.claim(3) as claim:
        claim.release()
    assert budget.statistics().used_bytes == 0


def test_a_with_block_gives_back_after_an_exception():
    budget = ByteBudget(10)

    def use():
        with budget.claim(3):
            assert budget.statistics().used_bytes == 3
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        use()
    assert budget.statistics().used_bytes == 0


@pytest.mark.parametrize("waiters", [1, 3])
def test_closing_wakes_everybody_who_waits(waiters):
    budget = ByteBudget(10)
    budget.acquire(10)
    with ThreadPoolExecutor(waiters) as pool:
        waits = [pool.submit(budget.acquire, 5) for _ in range(waiters)]
        wait_until(lambda: budget.statistics().waiting == waiters)
        budget.close()
        for wait in waits:
            with pytest.raises(ClosedError, match=r"^the budget was closed before 5 bytes were free in it$"):
                wait.result(timeout=10)
    budget.release(10)  # whoever holds bytes can still give them back
    assert budget.statistics().used_bytes == 0
    with pytest.raises(ClosedError, match=r"^5 bytes were claimed from a budget that is closed$"):
        budget.acquire(5)


def test_leaving_the_budgets_own_block_closes_it():
    with ByteBudget(1) as budget:
        pass
    assert budget.statistics().is_closed


def test_what_can_never_fit_is_refused_at_once():
    with pytest.raises(
        BudgetError, match=r"^one item of 9437184 bytes can never fit a budget of 4194304; raise limit_bytes$"
    ):
        ByteBudget(4194304).claim(9437184)


@pytest.mark.parametrize("limit", [0, -1, 1.5, True, "4GiB", None], ids=repr)
def test_a_limit_that_is_no_count_is_refused(limit):
    with pytest.raises(ArgumentError, match=r"^limit_bytes must be an integer of 1 or more, got "):
        ByteBudget(limit)


@pytest.mark.parametrize("item", [-1, 1.5, True, None], ids=repr)
@pytest.mark.parametrize("method", ["claim", "acquire", "release"])
def test_an_item_that_is_no_count_is_refused(item, method):
    with pytest.raises(ArgumentError, match=r"^item_bytes must be an integer of 0 or more, got "):
        getattr(ByteBudget(10), method)(item)


def test_more_than_is_held_cannot_be_given_back():
    budget = ByteBudget(10)
    budget.acquire(3)
    with pytest.raises(ArgumentError, match=r"^4 bytes were given back, but only 3 are held$"):
        budget.release(4)
    assert budget.statistics().used_bytes == 3


def test_many_threads_never_pass_the_limit_and_all_get_through():
    budget, held, most = ByteBudget(100), [0], [0]
    lock = threading.Lock()

    def work(seed):
        for step in range(200):
            size = (seed * 31 + step * 17) % 101
            with budget.claim(size):
                with lock:
                    held[0] += size
                    most[0] = max(most[0], held[0])
                with lock:
                    held[0] -= size

    with ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(work, seed) for seed in range(8)]:
            done.result(timeout=30)
    seen = budget.statistics()
    assert most[0] <= 100
    assert (seen.used_bytes, seen.waiting, seen.granted) == (0, 0, 1600)
    assert seen.peak_bytes <= 100


def test_an_interrupted_wait_leaves_the_line(monkeypatch):
    budget = ByteBudget(10)
    budget.acquire(10)

    def interrupted(self, *, timeout_s=None):
        raise KeyboardInterrupt

    monkeypatch.setattr("robocache.loader.budget.Claim.wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        budget.acquire(5)
    with pytest.raises(KeyboardInterrupt), budget.claim(5):
        pytest.fail("the block was entered")
    assert budget.statistics().waiting == 0


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_is_told_and_cannot_hang():
    budget = ByteBudget(10)
    claim = budget.claim(1)
    child = os.fork()
    if child == 0:
        told = False
        try:
            budget.claim(1)
        except ClosedError as error:
            told = "is a fork of it; make a ByteBudget in the process that uses it" in str(error)
        claim.release()
        budget.close()
        os._exit(0 if told else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert budget.statistics().used_bytes == 1


class BudgetMachine(RuleBasedStateMachine):
    """The budget against a model of a few lines: a line of sizes, served from the front while they fit."""

    LIMIT = 20

    def __init__(self):
        super().__init__()
        self.budget = ByteBudget(self.LIMIT)
        self.line, self.held, self.peak = deque(), [], 0

    def serve(self):
        while self.line and sum(claim.item_bytes for claim in self.held) + self.line[0].item_bytes <= self.LIMIT:
            self.held.append(self.line.popleft())
            self.peak = max(self.peak, sum(claim.item_bytes for claim in self.held))

    @rule(size=st.integers(0, LIMIT))
    def claim(self, size):
        self.line.append(self.budget.claim(size))
        self.serve()

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def give_back(self, data):
        self.held.pop(data.draw(st.integers(0, len(self.held) - 1))).release()
        self.serve()

    @precondition(lambda self: self.line)
    @rule(data=st.data())
    def leave_the_line(self, data):
        claim = self.line[data.draw(st.integers(0, len(self.line) - 1))]
        self.line.remove(claim)
        claim.release()
        self.serve()

    @invariant()
    def agrees_with_the_model(self):
        seen = self.budget.statistics()
        assert seen.used_bytes == sum(claim.item_bytes for claim in self.held) <= self.LIMIT
        assert seen.peak_bytes == self.peak
        assert seen.waiting == len(self.line)
        assert all(claim.state == "held" for claim in self.held)
        assert all(claim.state == "waiting" for claim in self.line)


TestBudgetMachine = BudgetMachine.TestCase
TestBudgetMachine.settings = settings(max_examples=50, stateful_step_count=30, deadline=None)
