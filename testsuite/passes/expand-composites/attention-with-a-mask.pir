; run: expand-composites{all=true}
; expect: ops matmul == 2
; expect: ops attention == 0
; expect: metric attention-expanded == 1
planish-ir 1
graph @"main"(v0 "q": f32[2,3,4], v1 "k": f32[2,5,4], v2 "v": f32[2,5,6], v3 "mask": f32[3,5]) {
  v4 = attention{scale=0.5, trans_k=true} v0, v1, v2, v3 : f32[2,3,6]
  return v4 "y"
}
