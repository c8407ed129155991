"""Executors that show what can go wrong with real ones: jobs not pickled, done twice, on a machine that sees less."""

import pickle
from concurrent.futures import Executor, Future, ThreadPoolExecutor


class Carrying(Executor):
    """Runs each job at once, and pickles it and what comes of it as if it were carried to another machine."""

    def __init__(self, times=1):
        self.times = times
        self.jobs = 0

    def submit(self, function, /, *arguments):
        self.jobs += 1
        future = Future()
        try:
            for _ in range(self.times):
                carried, given = pickle.loads(pickle.dumps((function, arguments)))
                found = self.run(carried, given)
            future.set_result(pickle.loads(pickle.dumps(found)))
        except Exception as error:  # noqa: BLE001  (whoever asks for the result gets it)
            future.set_exception(pickle.loads(pickle.dumps(error)))
        return future

    def run(self, function, arguments):
        return function(*arguments)


class Elsewhere(Carrying):
    """A machine that does not see a folder."""

    def __init__(self, folder):
        super().__init__()
        self.folder = folder

    def run(self, function, arguments):
        aside = self.folder.with_name("not seen")
        self.folder.rename(aside)
        try:
            return function(*arguments)
        finally:
            aside.rename(self.folder)


class Failing(Carrying):
    """The job of a given number fails, as one whose worker was lost."""

    def __init__(self, number):
        super().__init__()
        self.number = number

    def run(self, function, arguments):
        if self.jobs == self.number:
            raise ConnectionError("the worker was lost")
        return function(*arguments)


class Counting(ThreadPoolExecutor):
    """Threads, and how many jobs were given to them."""

    def __init__(self, workers):
        super().__init__(workers)
        self.begun = 0

    def submit(self, function, /, *arguments):
        self.begun += 1
        return super().submit(function, *arguments)
