"""The spool file: what survives a kill, an incomplete record, a full disk and a second process."""

import json

import pytest

from bus.envelope import Envelope, pack, unpack
from bus.errors import BusError
from bus.spool import Spool


def message(seq, lane="a", body="x"):
    return pack(Envelope("fact", body, incarnation=lane, seq=seq, after=seq - 1))


def seqs(path):
    spool = Spool(path)
    left = [unpack(data).seq for data in spool.load()[1]]
    spool.close()
    return left


def filled(path, count):
    spool = Spool(path)
    spool.load()
    for seq in range(1, count + 1):
        spool.append(message(seq))
    return spool


def test_what_was_appended_and_not_acknowledged_is_there_again(tmp_path):
    spool = filled(tmp_path / "spool", 5)
    spool.acknowledge("a", 2, left=3)
    spool.close()
    again = Spool(tmp_path / "spool")
    assert again.load() == ({"a": 2}, [message(seq) for seq in (3, 4, 5)])
    again.close()


def test_a_file_cut_at_any_byte_gives_the_whole_records_before_the_cut(tmp_path):
    filled(tmp_path / "spool", 6).close()
    data = (tmp_path / "spool").read_bytes()
    record = len(data) // 6
    for length in range(len(data) + 1):
        (tmp_path / "cut").write_bytes(data[:length])
        assert seqs(tmp_path / "cut") == list(range(1, length // record + 1))
        assert not (tmp_path / "cut").exists() or (tmp_path / "cut").stat().st_size == length // record * record


def test_a_flipped_bit_ends_the_file_at_that_record_and_never_invents_one(tmp_path):
    filled(tmp_path / "spool", 4).close()
    data = (tmp_path / "spool").read_bytes()
    for place in range(len(data)):
        damaged = bytearray(data)
        damaged[place] ^= 1 << (place % 8)
        (tmp_path / "bad").write_bytes(damaged)
        assert seqs(tmp_path / "bad") == list(range(1, place // (len(data) // 4) + 1))


def test_an_empty_spool_is_deleted(tmp_path):
    spool = filled(tmp_path / "spool", 5)
    spool.acknowledge("a", 5, left=0)
    spool.close()
    assert not (tmp_path / "spool").exists()


def test_rewriting_keeps_messages_and_what_was_acknowledged(tmp_path):
    spool = filled(tmp_path / "spool", 100)
    spool.acknowledge("a", 97, left=3)
    before = (tmp_path / "spool").stat().st_size
    spool.rewrite([message(seq) for seq in (98, 99, 100)])
    assert (tmp_path / "spool").stat().st_size < before / 10
    spool.append(message(101))
    spool.close()
    again = Spool(tmp_path / "spool")
    acknowledged, left = again.load()
    assert acknowledged == {"a": 97}
    assert [unpack(data).seq for data in left] == [98, 99, 100, 101]
    again.close()


def test_two_peers_cannot_share_a_spool_and_a_symlink_is_refused(tmp_path):
    spool = filled(tmp_path / "spool", 1)
    with pytest.raises(BusError, match="another peer"):
        Spool(tmp_path / "spool")
    spool.close()
    (tmp_path / "link").symlink_to(tmp_path / "spool")
    with pytest.raises(BusError):
        Spool(tmp_path / "link")


def test_the_file_is_its_owners_alone(tmp_path):
    filled(tmp_path / "spool", 1).close()
    assert (tmp_path / "spool").stat().st_mode & 0o777 == 0o600


def test_a_full_disk_loses_nothing_while_the_process_lives(processes, folder):
    processes.hub()
    options = {"spool": str(folder / "spool"), "file_bytes": 20_000}
    out, _ = processes.peer("w1", count=3000, **options).communicate(timeout=60)
    assert json.loads(out.splitlines()[-1])["done"]
    assert [entry[4] for entry in processes.entries()] == [str(number) for number in range(1, 3001)]


def test_when_the_disk_has_room_again_the_whole_outbox_is_on_it(processes, folder):
    """Without a hub; the file is limited, then not, then the process ends without a word and the next one brings everything."""
    spool = str(folder / "spool")
    processes.peer("w1", count=3000, spool=spool, file_bytes=20_000, then="room").wait(60)
    assert (folder / "spool").stat().st_size > 20_000
    processes.hub()
    out, _ = processes.peer("w1", spool=spool).communicate(timeout=60)
    assert json.loads(out.splitlines()[-1])["done"]
    assert [entry[4] for entry in processes.entries()] == [str(number) for number in range(1, 3001)]
