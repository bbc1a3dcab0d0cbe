; run: eliminate-dead
; expect: nodes == 1
planish-ir 1
graph @"main"(v0 "x": f32[2]) {
  v1 = unary{kind=exp} v0 : f32[2]
  v2 = unary{kind=neg} v1 : f32[2]
  v3 = unary{kind=abs} v0 : f32[2]
  return v3 "y"
}
