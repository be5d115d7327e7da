import pytest

from sslkit.dashboard import read_metrics


def test_bad_input(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"metrics\.csv"):
        read_metrics(tmp_path / "metrics.csv")
    (tmp_path / "metrics.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="no column 'step'"):
        read_metrics(tmp_path / "metrics.csv")
    (tmp_path / "metrics.csv").write_text("step,b\n1,word\n")
    with pytest.raises(ValueError, match="'b' at step 1 is 'word'"):
        read_metrics(tmp_path / "metrics.csv")


@pytest.mark.parametrize("text", ["", "step,ep", "step,epoch,x\n", "step,x\n\x00\x00\n1,2,3\n"])
def test_files_without_a_whole_row_have_no_series(tmp_path, text):
    (tmp_path / "metrics.csv").write_text(text)
    assert read_metrics(tmp_path / "metrics.csv") == {}
