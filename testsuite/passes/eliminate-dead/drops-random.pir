; run: eliminate-dead
; expect: nodes == 1
planish-ir 1
graph @"main"(v0 "x": f32[2]) {
  v1 = const i64[1] [4]
  v2 = random{dtype=f32, normal=false, a=0.0, b=1.0, seed=none} v1 : f32[4]
  v3 = unary{kind=neg} v0 : f32[2]
  return v3 "y"
}
