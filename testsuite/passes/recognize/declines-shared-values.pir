; run: recognize
; expect: remark pattern-shared
planish-ir 1
graph @"main"(v0 "x": f32[4]) {
  v1 = const f32[] [1.4142135]
  v2 = binary{kind=div} v0, v1 : f32[4]
  v3 = unary{kind=erf} v2 : f32[4]
  v4 = const f32[] [1.0]
  v5 = binary{kind=add} v3, v4 : f32[4]
  v6 = binary{kind=mul} v0, v5 : f32[4]
  v7 = const f32[] [0.5]
  v8 = binary{kind=mul} v6, v7 : f32[4]
  return v8 "y", v3 "erf"
}
