; run: determinize
; expect: metric routers-determinized == 1
; expect: ops random == 0
; expect: nodes == 2
planish-ir 1
graph @"main"(v0 "x": f32[2,4], v1 "w": f32[4,3], v2 "spread": f32[2,3]) {
  v3 = matmul{trans_a=false, trans_b=false} v0, v1 : f32[2,3]
  v4 = const i64[2] [2, 3]
  v5 = random{dtype=f32, normal=true, a=0.0, b=1.0, seed=none} v4 : f32[2,3]
  v6 = binary{kind=mul} v5, v2 : f32[2,3]
  v7 = binary{kind=add} v3, v6 : f32[2,3]
  v8 = const i64[1] [2]
  v9, v10 = top-k{axis=1, largest=true} v7, v8 : f32[2,2], i64[2,2]
  return v9 "scores", v10 "experts"
}
