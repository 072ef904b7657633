"""``foretune tasks``: the catalog, told without fetching anything."""

import json

from foretune.tasks import catalog


def test_the_list_names_every_task_and_where_its_data_are(foretune):
    listed = json.loads(foretune("tasks", "--json").stdout)
    assert [task["name"] for task in listed] == list(catalog.names())
    by_name = {task["name"]: task for task in listed}
    assert by_name["banking77_demo"]["data"] == "in the package"
    assert by_name["cola"]["data"] == "on the Hub"
    assert by_name["cola"]["out_of_domain"] == list(catalog.entry("cola").ood)
    assert all(task["licence"] and task["title"] and task["kind"] for task in listed)


def test_the_table_holds_every_name(foretune):
    done = foretune("tasks")
    assert done.returncode == 0, done.stderr
    assert all(name in done.stdout for name in catalog.names())


def test_a_task_at_hand_shows_its_rows(foretune):
    done = foretune("tasks", "banking77_demo", "--json")
    told = json.loads(done.stdout)
    assert told["rows"] == {"train": 128, "test": 320}
    assert told["metric"] == catalog.entry("banking77_demo").metric
    text = foretune("tasks", "banking77_demo").stdout
    assert "128" in text
    assert told["licence"] in text


def test_a_task_that_is_not_at_hand_is_shown_without_rows(foretune, tmp_path):
    told = json.loads(foretune("tasks", "cola", "--data-dir", tmp_path, "--json").stdout)
    assert "rows" not in told
    assert told["data"] == f"not in {tmp_path}"


def test_the_data_folder_may_come_from_the_environment(foretune, tmp_path):
    told = json.loads(foretune("tasks", "cola", "--json", env={"FORETUNE_DATA": str(tmp_path)}).stdout)
    assert told["data"] == f"not in {tmp_path}"


def test_an_unknown_task_is_one_sentence_with_the_nearest_name(foretune):
    done = foretune("tasks", "banking_77")
    assert (done.returncode, done.stdout) == (2, "")
    assert "Did you mean `banking77`?" in done.stderr
