; run: determinize
; expect: remark determinize-skipped no stochastic gate
; expect: ops random == 2
planish-ir 1
graph @"main"(v0 "x": f32[2,3]) {
  v1 = const i64[2] [2, 3]
  v2 = random{dtype=f32, normal=true, a=1.0, b=1.0, seed=none} v1 : f32[2,3]
  v3 = binary{kind=add} v0, v2 : f32[2,3]
  v4 = const i64[1] [2]
  v5, v6 = top-k{axis=1, largest=true} v3, v4 : f32[2,2], i64[2,2]
  v7 = random{dtype=f32, normal=true, a=0.0, b=1.0, seed=3} v1 : f32[2,3] @"dropout"
  v8 = binary{kind=mul} v3, v7 : f32[2,3]
  return v6 "best", v8 "y"
}
