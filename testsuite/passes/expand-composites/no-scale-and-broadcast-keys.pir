; run: expand-composites{all=true}
; expect: nodes == 3
planish-ir 1
sym batch 0..
graph @"main"(v0 "q": f32[batch,3,4], v1 "k": f32[4,5], v2 "v": f32[5,6]) {
  v3 = attention{scale=1.0, trans_k=false} v0, v1, v2 : f32[batch,3,6]
  return v3 "y"
}
