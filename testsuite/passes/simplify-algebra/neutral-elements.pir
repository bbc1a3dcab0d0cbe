; run: simplify-algebra
; expect: nodes == 0
planish-ir 1
graph @"main"(v0 "x": f32[2]) {
  v1 = const f32[] [1.0]
  v2 = const f32[] [0.0]
  v3 = binary{kind=mul} v0, v1 : f32[2]
  v4 = binary{kind=sub} v3, v2 : f32[2]
  v5 = binary{kind=div} v4, v1 : f32[2]
  return v5 "y"
}
