import errno
import hashlib
from types import SimpleNamespace

import huggingface_hub
import pytest
from huggingface_hub import constants, errors

from sparc_bench.errors import UserError
from sparc_bench.weights import hub

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REPO, FILE, CONTENT = "owner/name", "model.safetensors", b"the weights"
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Hub:
    """The hub with one repository: remembers what was asked of it and puts what is downloaded into the cache."""

    def __init__(self, cache):
        self.cache, self.asked, self.failure = cache, [], None
        self.size, self.etag = 605_157_884, SHA256

    def metadata(self, url, timeout):
        self.asked.append(url)
        assert timeout <= 5
        if self.failure is not None:
            raise self.failure
        return SimpleNamespace(size=self.size, etag=self.etag, commit_hash=COMMIT)

    def download(self, repo, file, revision=None):
        assert repo == REPO
        self.asked.append(f"download {file}")
        return str(put(self.cache, file=file, revision=revision or COMMIT))


def put(cache, content=CONTENT, file=FILE, revision=COMMIT, ref="main"):
    """A file in the cache as huggingface_hub lays it out."""
    folder = cache / "models--owner--name"
    path = folder / "snapshots" / revision / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    (folder / "refs").mkdir(exist_ok=True)
    (folder / "refs" / ref).write_text(revision)
    return path


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache; online or not is not this machine's affair."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    return tmp_path / "hub"


@pytest.fixture
def remote(cache, monkeypatch):
    remote = Hub(cache)
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", remote.metadata)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", remote.download)
    return remote


def failure(kind):
    """An error of huggingface_hub, whose constructors differ by version."""
    error = kind.__new__(kind)
    error.args = ("no",)
    return error


def test_find_knows_commits_and_the_last_main_and_asks_nobody(cache, remote):
    assert hub.find(REPO, FILE, None) is None
    path = put(cache)
    assert hub.find(REPO, FILE, None) == hub.find(REPO, FILE, "main") == hub.find(REPO, FILE, COMMIT) == path
    assert hub.find(REPO, FILE, "f" * 40) is None
    assert hub.find(REPO, "other", None) is None
    (cache / "models--owner--name" / ".no_exist" / COMMIT).mkdir(parents=True)
    (cache / "models--owner--name" / ".no_exist" / COMMIT / "other").touch()
    assert hub.find(REPO, "other", COMMIT) is None
    assert not remote.asked


@pytest.mark.parametrize("repo", ["a/b/c", "../x", "a--b/c", "owner/na me"])
def test_names_that_are_no_repository(cache, repo):
    with pytest.raises(UserError, match="no repository of the hub: write OWNER/NAME"):
        hub.find(repo, FILE, None)


@pytest.mark.parametrize("file", ["../../etc/passwd", "/etc/passwd", "a/../../b"])
def test_files_that_leave_their_repository(cache, remote, file):
    with pytest.raises(UserError, match="no path in owner/name"):
        hub.obtain(REPO, file, None, None)
    assert not remote.asked


def test_a_file_that_is_here_is_used_without_a_word_or_the_network(cache, remote, capsys):
    path = put(cache)
    assert hub.obtain(REPO, FILE, None, None) == path
    assert hub.obtain(REPO, FILE, COMMIT, SHA256) == path
    assert hub.obtain_all(REPO, {FILE: SHA256}, COMMIT) == [path]
    assert not remote.asked
    assert capsys.readouterr() == ("", "")


def test_another_file_than_was_pinned_is_refused(cache, remote):
    put(cache, b"other weights")
    with pytest.raises(UserError, match=rf"but {SHA256[:12]}\.\.\. was pinned for {FILE} of {REPO}: delete the file"):
        hub.obtain(REPO, FILE, COMMIT, SHA256)


def test_what_is_fetched_is_said_before_it_is(cache, remote, monkeypatch, capsys):
    said = []

    def download(repo, file, revision=None):
        said.append(capsys.readouterr())
        return remote.download(repo, file, revision)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    path = hub.obtain(REPO, FILE, None, SHA256)
    assert path.read_bytes() == CONTENT
    sentence = f"Downloading {FILE} (605.2 MB) of https://huggingface.co/{REPO} at {COMMIT} into {cache}.\n"
    assert said == [("", sentence)]
    assert remote.asked == [f"https://huggingface.co/{REPO}/resolve/main/{FILE}", f"download {FILE}"]


def test_all_files_are_said_before_the_first_is_fetched(cache, remote, capsys):
    put(cache, file="config.json")
    paths = hub.obtain_all(REPO, {"config.json": None, "a.bin": SHA256, "b.bin": None}, COMMIT)
    assert [path.name for path in paths] == ["config.json", "a.bin", "b.bin"]
    assert "Downloading a.bin (605.2 MB), b.bin (605.2 MB), 1.2 GB in all, of " in capsys.readouterr().err
    assert [each for each in remote.asked if "download" in each] == ["download a.bin", "download b.bin"]
    assert remote.asked[:2] == [f"https://huggingface.co/{REPO}/resolve/{COMMIT}/{name}.bin" for name in "ab"]


def test_a_file_of_unknown_size(cache, remote, capsys):
    remote.size = None
    hub.obtain(REPO, FILE, None, None)
    assert f"Downloading {FILE} (of unknown size) of " in capsys.readouterr().err


def test_the_wrong_file_is_not_even_fetched_where_the_hub_tells_its_sha256(cache, remote):
    remote.etag = "0" * 64
    with pytest.raises(UserError, match="was pinned and nothing was downloaded: mend the card's sha256 or revision"):
        hub.obtain(REPO, FILE, None, SHA256)
    assert len(remote.asked) == 1
    remote.etag = "a git hash, as small files have"
    assert hub.obtain(REPO, FILE, None, SHA256).is_file()


def test_a_downloaded_file_is_checked_too(cache, remote):
    remote.etag = None
    with pytest.raises(UserError, match=r"has the sha256 .* but 000000000000\.\.\. was pinned"):
        hub.obtain(REPO, FILE, None, "0" * 64)


@pytest.mark.parametrize(
    ("kind", "match"),
    [
        (errors.GatedRepoError, "asks for consent: accept the terms on that page and run hf auth login"),
        (errors.RepositoryNotFoundError, r"no public https://huggingface.co/owner/name: check the name"),
        (errors.RevisionNotFoundError, r"has no revision 'v2': choose one of .*/commits/main$"),
        (errors.EntryNotFoundError, r"has no file 'model.safetensors': choose one of .*/tree/v2$"),
        (ConnectionError, r"at v2 is not on this machine and the hub cannot be reached \(no\): run hf download"),
    ],
)
def test_each_refusal_of_the_hub_is_a_sentence(cache, remote, kind, match):
    remote.failure = failure(kind)
    with pytest.raises(UserError, match=match):
        hub.obtain(REPO, FILE, "v2", None)
    assert len(remote.asked) == 1
    assert not cache.exists()


def test_offline_mode_asks_nobody_and_says_what_to_do_elsewhere(cache, remote, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError) as caught:
        hub.obtain(REPO, FILE, COMMIT, None)
    assert str(caught.value) == (
        f"{FILE} of https://huggingface.co/{REPO} at {COMMIT} is not on this machine and HF_HUB_OFFLINE is set: run "
        f"hf download {REPO} {FILE} --revision {COMMIT} on a machine with network and copy its cache into {cache}, or "
        "name a file of this machine."
    )
    assert not remote.asked
    path = put(cache)
    assert hub.obtain(REPO, FILE, COMMIT, SHA256) == path


def test_a_download_that_breaks_off_and_a_full_disk(cache, remote, monkeypatch):
    def broken(*args, **kwargs):
        raise problem

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", broken)
    problem = ConnectionError("reset by peer.\nmore")
    with pytest.raises(UserError, match=r"broke off \(reset by peer\): run the same command again"):
        hub.obtain(REPO, FILE, None, None)
    problem = OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(OSError, match="No space left"):  # the command line has a sentence for it
        hub.obtain(REPO, FILE, None, None)
