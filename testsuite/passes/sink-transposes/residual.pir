; run: sink-transposes,eliminate-dead
; expect: ops transpose == 1
planish-ir 1
graph @"main"(v0 "x": f32[1,2,3,4], v1 "b": f32[1,2,3,4]) {
  v2 = transpose{perm=[0, 2, 3, 1]} v0 : f32[1,3,4,2]
  v3 = transpose{perm=[0, 2, 3, 1]} v1 : f32[1,3,4,2]
  v4 = transpose{perm=[0, 3, 1, 2]} v2 : f32[1,2,3,4]
  v5 = unary{kind=exp} v4 : f32[1,2,3,4]
  v6 = transpose{perm=[0, 2, 3, 1]} v5 : f32[1,3,4,2]
  v7 = binary{kind=add} v6, v2 : f32[1,3,4,2]
  v8 = binary{kind=mul} v7, v3 : f32[1,3,4,2]
  return v8 "y"
}
