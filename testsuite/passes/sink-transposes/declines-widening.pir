; run: sink-transposes
; expect: ops transpose == 1
planish-ir 1
graph @"main"(v0 "x": f32[1,3]) {
  v1 = transpose{perm=[1, 0]} v0 : f32[3,1]
  v2 = const f32[1,4] [1.0, 2.0, 3.0, 4.0]
  v3 = binary{kind=add} v1, v2 : f32[3,4]
  return v3 "y"
}
