; run: sink-transposes
; expect: remark transpose-kept not transposed in the same way
; expect: ops transpose == 1
planish-ir 1
graph @"main"(v0 "x": f32[2,3], v1 "w": f32[3,2]) {
  v2 = transpose{perm=[1, 0]} v0 : f32[3,2]
  v3 = binary{kind=add} v2, v1 : f32[3,2]
  return v3 "y"
}
