from rkbench.step.collectives import Moved, moved

PROGRAM = """
  %psum.1 = f32[8]{0} all-reduce(%fusion), channel_id=1, to_apply=%region
  ROOT %all-reduce = (f32[], f32[5,8]{1,0}, bf16[3]{0}) all-reduce(%a, %b, %c), channel_id=1
  %all-gather-start.2 = (s32[2]{0}, s32[4]{0}) all-gather-start(%param.3), dimensions={0}
  %done = s32[4]{0} all-gather-done(%all-gather-start.2)
  %add = f32[4]{0} add(%all-reduce, %psum.1)
"""


def test_each_operation_counts_once_with_the_bytes_of_its_results():
    assert moved(PROGRAM) == {
        "all-reduce": Moved(2, 8 * 4 + 4 + 5 * 8 * 4 + 3 * 2),
        "all-gather": Moved(1, 2 * 4 + 4 * 4),
    }


def test_a_program_for_one_device_moves_nothing():
    assert moved("  %add = f32[4]{0} add(%x, %y)\n") == {}
