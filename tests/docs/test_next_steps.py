"""A script written for ClearML's Dataset, of creation, preprocessing and training, runs with the import changed."""

import shlex
import subprocess
import sys
from pathlib import Path

SHELL = """
dataset-store create --project data --name dataset_v1
dataset-store sync --folder ./from_production
"""

PREPROCESSING = """
from dataset_store import Dataset

# get the v1 dataset
dataset = Dataset.get(dataset_project='data', dataset_name='dataset_v1')

# get a local mutable copy of the dataset
dataset_folder = dataset.get_mutable_local_copy(
    target_folder='work_dataset',
    overwrite=True
)
# change some files in the `./work_dataset` folder
with open('work_dataset/table.csv', 'a') as table:
    table.write('4,5,6\\n')

# create a new version of the dataset
new_dataset = Dataset.create(
    dataset_project='data', dataset_name='dataset_v2',
    parent_datasets=[dataset],
    use_current_task=True,
)
new_dataset.sync_folder(local_path=dataset_folder)
new_dataset.upload()
new_dataset.finalize()
# now let's remove the previous dataset tag
dataset.tags = []
new_dataset.tags = ['latest']
"""

TRAINING = """
from dataset_store import Dataset

# get the latest dataset with the tag `latest`
dataset = Dataset.get(dataset_tags='latest')

# get a cached copy of the Dataset files
dataset_folder = dataset.get_local_copy()
print(dataset_folder)
"""


def run(*command: str) -> subprocess.CompletedProcess:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done


def test_creation_preprocessing_and_training_run_as_three_programs(home):
    (home / "from_production").mkdir()
    (home / "from_production" / "table.csv").write_text("1,2,3\n")
    for line in SHELL.strip().splitlines():
        run(sys.executable, "-m", "dataset_store.cli", *shlex.split(line)[1:])
    warned = run(sys.executable, "-c", PREPROCESSING)
    assert "no task is running" in warned.stderr
    folder = run(sys.executable, "-c", TRAINING).stdout.strip()
    assert Path(folder, "table.csv").read_text() == "1,2,3\n4,5,6\n"
    assert run(sys.executable, "-c", TRAINING).stdout.strip() == folder


def test_the_preprocessing_may_be_repeated_and_the_newest_of_one_tag_is_taken(home):
    (home / "from_production").mkdir()
    (home / "from_production" / "table.csv").write_text("1,2,3\n")
    for line in SHELL.strip().splitlines():
        run(sys.executable, "-m", "dataset_store.cli", *shlex.split(line)[1:])
    run(sys.executable, "-c", PREPROCESSING)
    run(sys.executable, "-c", PREPROCESSING.replace("4,5,6", "7,8,9"))
    folder = run(sys.executable, "-c", TRAINING).stdout.strip()
    assert Path(folder, "table.csv").read_text() == "1,2,3\n7,8,9\n"
