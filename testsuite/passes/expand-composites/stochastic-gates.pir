; run: expand-composites
; expect: metric stochastic-gates-expanded == 1
; expect: metric detached-removed == 1
; expect: ops detach == 0
planish-ir 1
graph @"main"(v0 "x": f32[2,3], v1 "noise": f32[2,3]) {
  v2 = detach v1 : f32[2,3]
  v3 = stochastic-gate{kind=smooth, estimator=derivative, sd=1.0} v0, v2 : f32[2,3]
  return v3 "y"
}
