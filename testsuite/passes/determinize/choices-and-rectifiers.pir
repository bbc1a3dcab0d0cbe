; run: determinize
; expect: metric gates-determinized == 4
; expect: no remark determinize-skipped
; expect: ops softmax == 2
; expect: ops random == 0
planish-ir 1
sym batch 0..
graph @"main"(v0 "x": f32[batch,3], v1 "t": f32[]) {
  v2 = shape{start=0, end=none} v0 : i64[2]
  v3 = random{dtype=f32, normal=false, a=0.0, b=1.0, seed=none} v2 : f32[batch,3]
  v4 = stochastic-gate{kind=gumbel-softmax, estimator=straight-through, sd=1.0} v0, v3, v1 : f32[batch,3]
  v5 = stochastic-gate{kind=gumbel-softmax, estimator=derivative, sd=1.0} v0, v3, v1 : f32[batch,3]
  v6 = stochastic-gate{kind=gaussian, estimator=derivative, sd=0.5} v5, v3 : f32[batch,3]
  v7 = stochastic-gate{kind=gumbel-sigmoid, estimator=straight-through, sd=1.0} v6, v3 : f32[batch,3]
  return v4 "choice", v7 "gate"
}
