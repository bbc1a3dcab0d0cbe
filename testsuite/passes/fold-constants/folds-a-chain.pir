; run: fold-constants
; expect: nodes == 1
planish-ir 1
graph @"main"(v0 "x": f32[2]) {
  v1 = const f32[] [2.0]
  v2 = unary{kind=neg} v1 : f32[]
  v3 = unary{kind=abs} v2 : f32[]
  v4 = binary{kind=mul} v0, v3 : f32[2]
  return v4 "y"
}
