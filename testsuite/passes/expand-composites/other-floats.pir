; run: expand-composites
; expect: ops attention == 0
; expect: ops softmax == 1
planish-ir 1
graph @"main"(v0 "q": f64[3,4], v1 "k": f64[4,5], v2 "v": f64[5,6]) {
  v3 = attention{scale=1.0, trans_k=false} v0, v1, v2 : f64[3,6]
  return v3 "y"
}
