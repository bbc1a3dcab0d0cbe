; run: simplify-algebra
; expect: ops binary == 1
planish-ir 1
graph @"main"(v0 "x": f32[2]) {
  v1 = const f32[] [0.0]
  v2 = binary{kind=mul} v0, v1 : f32[2]
  return v2 "y"
}
