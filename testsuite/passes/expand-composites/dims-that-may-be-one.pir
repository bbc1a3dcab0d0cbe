; run: expand-composites
; expect: ops attention == 0
; expect: ops matmul == 2
; expect: metric attention-expanded == 1
planish-ir 1
sym batch 0..
sym other 5..5
graph @"main"(v0 "q": f32[batch,3,4], v1 "k": f32[4,5], v2 "v": f32[5,6], v3 "mask": f32[3,other]) {
  v4 = attention{scale=1.0, trans_k=false} v0, v1, v2, v3 : f32[batch,3,6]
  return v4 "y"
}
