"""Text formats as programs really write them: numbers count and not lines, marks and decimal signs of all kinds.

Every file here has one right reading; where two are possible, it is refused and says why.
"""

from __future__ import annotations

import numpy as np
import pytest

from sparsefeat.io.meshes import read_mesh
from sparsefeat.io.pointcloud import read_points

POINTS = np.array([[0, 0, 0], [1.5, 0, 0], [0, 2.25, 0], [0, 0, 3.125], [4, 5, 6]])
TRIANGLES = [[0, 1, 2], [0, 1, 3], [0, 2, 4], [1, 2, 3]]
MIXED = [[0, 1, 2], [0, 1, 3, 4], [0, 2, 4]]
CUT = [[0, 1, 2], [0, 1, 3], [0, 3, 4], [0, 2, 4]]  # MIXED in triangles


def words(rows) -> str:
    return " ".join(" ".join(f"{value:g}" for value in row) for row in rows)


def lines(rows) -> str:
    return "".join(" ".join(f"{value:g}" for value in row) + "\n" for row in rows)


def polygon_lines(polygons, end: str = "") -> str:
    return "".join(f"{len(p)} {' '.join(map(str, p))}{end}\n" for p in polygons)


def ply(body: str, faces: int = 4, extra: tuple[str, ...] = ()) -> str:
    header = [
        "ply",
        "format ascii 1.0",
        "element vertex 5",
        *(f"property float {axis}" for axis in "xyz"),
        *extra,
    ]
    return "\n".join(
        [
            *header,
            f"element face {faces}",
            "property list uchar int vertex_indices",
            "end_header",
            body,
        ]
    )


NORMALS = ("property float nx", "property float ny", "property float nz")
WITH_NORMALS = np.hstack([POINTS, np.tile([0, 0, 1.0], (5, 1))])
ALL = polygon_lines(TRIANGLES)

MESHES = {
    "normals_below.ply": ply(
        "".join(lines([p[:3], p[3:]]) for p in WITH_NORMALS) + ALL, extra=NORMALS
    ),
    "one_number_a_line.ply": ply(words(POINTS).replace(" ", "\n") + "\n" + ALL.replace(" ", "\n")),
    "all_on_one_line.ply": ply(words(POINTS) + " " + ALL.replace("\n", " ")),
    "blank_lines.ply": ply("\n" + lines(POINTS).replace("\n", "\n\n") + "\n" + ALL),
    "fortran.ply": ply(lines(POINTS).replace("1.5", "1.5D+00") + ALL),
    "text_behind.ply": ply(lines(POINTS) + ALL + "made by a scanner\n"),
    "tabs.ply": ply(lines(POINTS).replace(" ", "\t") + ALL),
    "plain.off": "OFF\n5 4 0\n" + lines(POINTS) + ALL,
    "no_edges.off": "OFF\n5 4\n" + lines(POINTS) + ALL,
    "counts_on_lines.off": "OFF\n5\n4\n0\n" + lines(POINTS) + ALL,
    "one_line.off": "OFF 5 4 0 " + words(POINTS) + " " + ALL.replace("\n", " "),
    "two_a_line.off": "OFF\n5 4 0\n"
    + words(POINTS[:2])
    + "\n"
    + words(POINTS[2:4])
    + "\n"
    + words(POINTS[4:])
    + "\n"
    + ALL,
    "face_colors.off": "OFF\n5 4 0\n" + lines(POINTS) + polygon_lines(TRIANGLES, " 255 0 0"),
    "some_face_colors.off": "OFF\n5 4 0\n"
    + lines(POINTS)
    + ALL.replace("3 0 1 3", "3 0 1 3 0.5 0.5 1"),
    "vertex_colors.off": "COFF\n5 4 0\n" + lines(np.hstack([POINTS, np.ones((5, 4))])) + ALL,
    "three_vertex_colors.off": "COFF\n5 4 0\n" + lines(np.hstack([POINTS, np.ones((5, 3))])) + ALL,
    "undeclared_colors.off": "OFF\n5 4 0\n" + lines(np.hstack([POINTS, np.ones((5, 3))])) + ALL,
    "wrapped_normals.off": "NOFF\n5 4 0\n"
    + words(WITH_NORMALS[:3])
    + "\n"
    + words(WITH_NORMALS[3:])
    + "\n"
    + ALL,
    "comments.off": "OFF # triangles\n# counts\n5 4 0 # edges\n"
    + lines(POINTS).replace("\n", " # a vertex\n")
    + ALL,
    "plain.obj": "".join(f"v {line}\n" for line in lines(POINTS).splitlines())
    + "".join(f"f {a + 1} {b + 1} {c + 1}\n" for a, b, c in TRIANGLES),
}
OBJ = MESHES["plain.obj"]
MESHES |= {
    "indented.obj": OBJ.replace("v ", " \tv  ").replace("f ", "\tf\t"),
    "tabs.obj": OBJ.replace(" ", "\t"),
    "behind.obj": OBJ.replace("\n", " # of the left hand, f 1 2 3\n"),
    "continued.obj": OBJ.replace("v 4 5 6", "v 4 \\\n5 \\\n 6").replace("f 1 2 3", "f 1 2\\\n 3"),
    "folders.obj": "mtllib C:\\models\\\n" + OBJ.replace("f 1", "g a\\\nusemtl b\\ \nf 1", 1),
    "path_in_comment.obj": "# C:\\models\\\n" + OBJ,
    "some_colors.obj": OBJ.replace("v 4 5 6", "v 4 5 6 0.5 0.5 0.25"),
    "weights.obj": OBJ.replace("v 4 5 6", "v 4 5 6 1.0"),
    "textures.obj": "vt 0 0\nvn 0 0 1\n"
    + OBJ.replace("f 1 2 3", "f 1/1 2/1 3/1").replace("f 1 2 4", "f 1//1 2/1/1 4"),
    "backwards.obj": OBJ.replace("f 1 2 3", "f -5 -4 -3"),
}


def encodings(content: str) -> dict[str, bytes]:
    data = content.encode()
    return {
        "as_it_is": data,
        "crlf": data.replace(b"\n", b"\r\n"),
        "cr": data.replace(b"\n", b"\r"),
        "mark": b"\xef\xbb\xbf" + data,
        "utf-16": content.encode("utf-16"),
        "utf-16 without a mark": content.encode("utf-16-le"),
        "utf-16 of the other order without a mark": content.encode("utf-16-be"),
        "no_end": data.rstrip(b"\n"),
    }


@pytest.mark.parametrize("encoding", encodings(""))
@pytest.mark.parametrize("name", MESHES)
def test_the_same_mesh_however_it_is_written_and_points_agree_with_it(tmp_path, name, encoding):
    (tmp_path / name).write_bytes(encodings(MESHES[name])[encoding])
    mesh = read_mesh(tmp_path / name)
    np.testing.assert_array_equal(mesh.vertices, POINTS)
    assert mesh.faces.tolist() == TRIANGLES
    np.testing.assert_array_equal(read_points(tmp_path / name).points, POINTS)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.ply", ply(lines(POINTS) + polygon_lines(MIXED), 3)),
        ("b.ply", ply(words(POINTS) + "\n" + polygon_lines(MIXED).replace("\n", " "), 3)),
        ("a.off", "OFF\n5 3 0\n" + lines(POINTS) + polygon_lines(MIXED)),
        ("b.off", "OFF\n5 3 0\n" + lines(POINTS) + polygon_lines(MIXED, " 7 7 7")),
        ("c.off", "OFF\n5 3 0\n" + words(POINTS) + "\n" + polygon_lines(MIXED).replace("\n", " ")),
        ("a.obj", OBJ.partition("f")[0] + "f 1 2 3\nf 1 2 4 5\nf 1 3 5\n"),
    ],
)
def test_polygons_of_several_sizes(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    mesh = read_mesh(tmp_path / name)
    np.testing.assert_array_equal(mesh.vertices, POINTS)
    assert mesh.faces.tolist() == CUT and mesh.repairs == ("1 polygon cut into 2 triangles",)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("long_lines.ply", ply(lines(WITH_NORMALS) + ALL), "line 1 of the data has 6 values, the header promises 3"),
        ("one_more.ply", ply(lines(POINTS).replace("4 5 6", "4 5 6 7") + ALL), "malformed|left over|list of|cut off"),
        ("one_less.ply", ply(lines(POINTS).replace("4 5 6", "4 5") + ALL), "line 5 of the data has 2 values"),
        ("word.ply", ply(lines(POINTS).replace("1.5", "l.5") + ALL), "line 2 .*vertex 1 is malformed: 'l.5 0 0'"),
        ("twice.ply", ply(lines(POINTS) + ALL).replace("float y", "float x", 1), "property x twice|no property y"),
        ("repeated.ply", ply(lines(POINTS) + ALL, extra=("property float x",)), "property x twice"),
        ("many.ply", ply(lines(POINTS) + ALL, faces=9999999999), "cut off after the vertices"),
        ("color.ply", ply(lines(np.hstack([POINTS, POINTS + 300])) + ALL,
                          extra=tuple(f"property uchar {c}" for c in ("red", "green", "blue"))), "expected 0 to 255"),
        ("many.off", "OFF\n9999999999 4 0\n" + lines(POINTS), "cut off"),
        ("word.off", "OFF\n5 4 0\n" + lines(POINTS).replace("1.5", "l.5") + ALL, "line 4.*vertex .* 1 is malformed"),
        ("short.off", "OFF\n5 4 0\n" + lines(POINTS)[:-2] + "\n" + ALL, "malformed|cut off|expected"),
        ("binary.off", "OFF BINARY\n", "binary"),
        ("nothing.off", "OFF\n", "numbers of vertices and faces are missing"),
        ("other_digits.off", "OFF\n\u0665 4 0\n", "malformed"),
        ("short.obj", OBJ.replace("v 4 5 6", "v 4 5"), "line 5: vertex .* 4 is malformed: '4 5'"),
        ("bare.obj", OBJ.replace("v 4 5 6", "v"), "line 5: vertex .* 4 is malformed: ''"),
        ("word.obj", OBJ.replace("f 1 2 3", "f 1 2 3.5"), "line 6: malformed face"),
        ("continued_word.obj", OBJ.replace("v 4 5 6", "v 4 \\\n5 6").replace("f 1 2 3", "f 1 2 x"), "line 7: malformed"),
        ("nul.obj", OBJ.replace("v 4 5 6", "v 4\0 5 6"), "byte .* is NUL"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_rightly_is_refused_with_its_place(tmp_path, name, content, said):
    (tmp_path / name).write_text(content, encoding="utf-8")
    for read in (read_mesh, read_points):
        if read is read_points and name.startswith(
            ("word.obj", "continued_word", "short.off", "one_more")
        ):
            continue  # points alone are right there, or may be
        with pytest.raises(ValueError, match=said) as error:
            read(tmp_path / name)
        assert name in str(error.value) and "\n" not in str(error.value)


ROWS = np.array([[1.25, 2.5, 3.75], [-4.25, 5, 6e-3]])
TEXT = "1.25 2.5 3.75\n-4.25 5 6e-3\n"
COMMA = TEXT.replace(".", ",")

TABLES = {
    "blanks": TEXT,
    "tabs": TEXT.replace(" ", "\t"),
    "commas": TEXT.replace(" ", ","),
    "commas_and_blanks": TEXT.replace(" ", ", "),
    "semicolons": TEXT.replace(" ", ";"),
    "semicolons_and_blanks": TEXT.replace(" ", " ; "),
    "trailing_commas": TEXT.replace(" ", ",").replace("\n", ",\n"),
    "decimal_commas": COMMA,
    "decimal_commas_and_tabs": COMMA.replace(" ", "\t"),
    "decimal_commas_and_semicolons": COMMA.replace(" ", ";"),
    "decimal_commas_and_names": "X Y Z\n" + COMMA,
    "fortran": "1.25D+00 2.5d0 3.75D0\n-4.25D+00 5 6.D-03\n",
    "quoted": '"1.25","2.5","3.75"\n"-4.25","5","6e-3"\n',
    "quoted_decimal_commas": '"1,25","2,5","3,75"\n"-4,25","5","6e-3"\n',
    "quoted_names": '"x","y","z"\n' + TEXT.replace(" ", ","),
    "count": "2\n" + TEXT,
    "names_and_comments": "# scan\n//X Y Z\nx y z\n" + TEXT.replace("\n", " # seen once\n"),
    "index_column": "index,y,x,z\n0,2.5,1.25,3.75\n1,5,-4.25,6e-3\n",
    "class_behind": "".join(f"{line} 1 2 3 chair\n" for line in TEXT.splitlines()),
    "signs": TEXT.replace("1.25", "+1.25").replace("5 6e-3", "5. .006"),
    "names_of_several_words": "Point ID,X,Y,Z\n1,1.25,2.5,3.75\n2,-4.25,5,6e-3\n",
    "names_in_quotes": '"Point ID","X","Y","Z"\n1,1.25,2.5,3.75\n2,-4.25,5,6e-3\n',
    "names_behind_tabs": "Point ID\tZ\tX\tY\n1\t3,75\t1,25\t2,5\n2\t0,006\t-4,25\t5\n",
    "names_with_units": "id,x [m],y [m],z [m]\n1,1.25,2.5,3.75\n2,-4.25,5,6e-3\n",
    "names_with_units_and_blanks": "z (m) x (m) y (m)\n3.75 1.25 2.5\n6e-3 -4.25 5\n",
    "names_with_other_separators": "z, x, y\n3.75 1.25 2.5\n6e-3 -4.25 5\n",
    "names_of_all_but_the_first_column": ",x,y,z\n0,1.25,2.5,3.75\n1,-4.25,5,6e-3\n",
    "names_in_a_comment": "# by a scanner\n# id x y z\n1 1.25 2.5 3.75\n2 -4.25 5 6e-3\n",
    "names_in_a_comment_of_columns": "//Columns: Z,X,Y\n3.75,1.25,2.5\n6e-3,-4.25,5\n",
    "a_comment_that_is_no_names": "# z x y\n# metres, as z is upwards\n" + TEXT,
    "a_title": "the hall\n" + TEXT,
    "blank_lines": "\n\n" + TEXT.replace("\n", "\n\n"),
}


@pytest.mark.parametrize("encoding", encodings(""))
@pytest.mark.parametrize("name", TABLES)
def test_tables_of_all_conventions(tmp_path, name, encoding):
    (tmp_path / "a.xyz").write_bytes(encodings(TABLES[name])[encoding])
    np.testing.assert_array_equal(read_points(tmp_path / "a.xyz").points, ROWS)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "no number"),
        (b"\xef\xbb\xbf", "no number"),
        (b"\n\n", "no number"),
        (b"x y z\n", "no number"),
        (b"3\n1 2 3\n4 5 6\n", "cut off, 2 of 3 points"),
        (b"7\n", "cut off, 7 points promised"),
        (b"1,25 2,50\n3,5 4,5\n", "2 columns"),
        (b"1.5,2.5,3.5 255,0,0\n", "line 1: .*commas"),
        (b"x y z\n1,2,3 4 5\n", "line 2: .*commas"),
        (b"1.234,5 2 3\n", "commas"),
        (b"1,25, 2,50, 3,75\n", "line 1: .*commas"),
        (b"1,,3\n4,5,6\n", "line 1: an empty column"),
        (b"1;2;3\n4;;6\n", "line 2: an empty column"),
        (b"1 2 3\n4 5 6 7\n", "line 2: row 1 is malformed: '4 5 6 7'"),
        (b"1 2 1.#IND\n", "line 1: row 0 is malformed"),
        (b"1 2 1_0\n", "line 1: row 0 is malformed"),
        (b"1 2 0x10\n", "line 1: row 0 is malformed"),
        ("1 2 \u2212 3\n".encode(), "line 1"),
        (b"C 0 0 0\nH 1 0 0\n", "malformed"),
        (TEXT.encode("utf-16-le")[:-1], "UTF-16"),
        (TEXT.encode("utf-32-le"), "byte 1 is NUL"),
        (b"1 2 3\0\n", "byte 5 is NUL"),
        (b"\xff\xfe1", "UTF-16"),
        (b"'1,234.5','2','3'\n", "malformed"),
        (b"x y z\n1 2 3 4\n", "the names 'x y z' are 3, and there are 4 columns"),
        (b'"x" "y" "z"\n"1" 5 6 7\n', "are 3, and there are 4 columns"),
        (b'"Point ID" "x" "y" "z"\n1 5 6 7\n', "are 5, and there are 4 columns"),
        (b"scan id,x,y,z,class\n1,2,3,4\n", "and there are 4 columns"),
        (b"<html><body>1 2 3</body></html>\n", "malformed|no number"),
    ],
)  # fmt: skip
def test_tables_that_could_be_read_wrongly_are_refused(tmp_path, content, said):
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(ValueError, match=said) as error:
        read_points(tmp_path / "a.txt")
    assert "a.txt" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "colors"),
    [
        ("1 2 3 9 8 7\n", [9, 8, 7]),
        ("1 2 3 9 8 7 0.5\n", [9, 8, 7]),
        ("1 2 3 9 8 7 chair\n", [9, 8, 7]),
        ("1 2 3 9 8 7 -1\n", [9, 8, 7]),
        ("1 2 3 4 9 8 7\n", None),  # x y z intensity r g b
        ("1 2 3 4 9 8 7 chair\n", None),
        ("1 2 3 0 0 1\n", None),  # a normal
        ("x y z intensity ring return\n1 2 3 9 8 7\n", None),
        ("x y z nx ny nz\n1 2 3 5 6 7\n", None),
        ("# x y z intensity ring return\n1 2 3 9 8 7\n", None),
        ("x y z intensity r g b\n1 2 3 4 9 8 7\n", [9, 8, 7]),
        ("x,y,z,Red,Green,Blue\n1,2,3,0,1,0.2\n", [0, 255, 51]),
        ("//X,Y,Z,Rf,Gf,Bf\n1,2,3,0.2,0.4,1.0\n", [51, 102, 255]),
        ("z y x r g b\n3 2 1 9.0 8.2 7\n", [9, 8, 7]),
    ],
)
def test_colours_are_the_columns_of_that_name_or_columns_4_to_6(tmp_path, content, colors):
    (tmp_path / "a.txt").write_text(content)
    cloud = read_points(tmp_path / "a.txt")
    assert cloud.points.tolist() == [[1, 2, 3]]
    assert (None if cloud.colors is None else cloud.colors.tolist()[0]) == colors


def test_columns_have_the_names_that_the_first_line_gives(tmp_path):
    (tmp_path / "a.txt").write_text("red,green,blue,z,y,x\n1,2,3,0.25,0.5,0.75\n4,5,6,1,2,3\n")
    cloud = read_points(tmp_path / "a.txt")
    assert cloud.points.tolist() == [[0.75, 0.5, 0.25], [3, 2, 1]]
    assert cloud.colors.tolist() == [[1, 2, 3], [4, 5, 6]]
