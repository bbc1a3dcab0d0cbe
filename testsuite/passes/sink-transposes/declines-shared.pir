; run: sink-transposes
; expect: remark transpose-kept has other users
; expect: ops transpose == 1
planish-ir 1
graph @"main"(v0 "x": f32[2,3]) {
  v1 = transpose{perm=[1, 0]} v0 : f32[3,2]
  v2 = unary{kind=exp} v1 : f32[3,2]
  return v2 "y", v1 "z"
}
