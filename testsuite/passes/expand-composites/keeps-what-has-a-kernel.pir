; run: expand-composites
; expect: ops attention == 1
; expect: metric attention-kept == 1
planish-ir 1
sym batch 0..
graph @"main"(v0 "q": f32[batch,3,4], v1 "k": f32[4,5], v2 "v": f32[5,6], v3 "mask": f32[batch,1,5]) {
  v4 = attention{scale=1.0, trans_k=false} v0, v1, v2, v3 : f32[batch,3,6]
  return v4 "y"
}
