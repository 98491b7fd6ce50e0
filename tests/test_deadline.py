from pneumonia.deadline import Deadline


def test_time_runs_out_and_no_further() -> None:
    before = Deadline.after(3600)
    assert 0 < before.seconds_left <= 3600
    assert Deadline.after(0).seconds_left == 0
    assert Deadline.after(-5).seconds_left == 0


def test_earlier_deadline_is_the_smaller() -> None:
    early, late = Deadline.after(1), Deadline.after(2)
    assert min(late, early) is early
