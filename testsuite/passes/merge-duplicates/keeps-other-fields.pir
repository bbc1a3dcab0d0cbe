; run: merge-duplicates
; expect: ops unary == 2
planish-ir 1
graph @"main"(v0 "x": f32[2]) {
  v1 = unary{kind=exp} v0 : f32[2]
  v2 = unary{kind=neg} v0 : f32[2]
  v3 = binary{kind=add} v1, v2 : f32[2]
  return v3 "y"
}
